//! What a program was understood as: its records, whole, on their way into the analysis.

use std::collections::HashMap;

use genie_analysis::AnalysisError;
use genie_analysis::explain::{Explanation, Place, annotated};
use genie_analysis::graph::{Builder, Call, Graph};
use genie_client::engine::{Event, Host as _, Transcript, Written};
use genie_session::record::Kind;
use genie_srg::ValidSrg;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::host::Python as Host;

/// What was recorded while somebody wanted to know.
#[pyclass(frozen, module = "genie._native", name = "Transcript")]
pub struct Recorded {
    transcript: Transcript,
}

impl Recorded {
    /// Of a profile.
    pub fn new(transcript: Transcript) -> Self {
        Self { transcript }
    }
}

/// What is known of a record besides: its module, its line, and when it ran.
type Known = (String, String, Option<f64>);

#[pymethods]
impl Recorded {
    /// Records for which there was no room.
    #[getter]
    fn dropped(&self) -> u64 {
        self.transcript.dropped
    }

    /// The explanation in a style: "text", "json" or "html". `known` are of the profile's captured records; `nodes`
    /// are the names of devices, by lane; `warnings` come after the explanation's own.
    fn explain(
        &self,
        py: Python<'_>,
        style: &str,
        known: Vec<Known>,
        nodes: Vec<String>,
        warnings: Vec<String>,
    ) -> PyResult<String> {
        let explained = py.detach(|| -> Result<String, String> {
            let srg = self
                .srg(&known, &nodes)
                .map_err(|error| error.to_string())?;
            let mut explanation = Explanation::of(srg.as_srg());
            explanation.warnings.extend(warnings);
            match style {
                "json" => serde_json::to_string(&explanation).map_err(|error| error.to_string()),
                "html" => Ok(explanation.page()),
                _ => Ok(explanation.to_string()),
            }
        });
        explained.map_err(PyValueError::new_err)
    }

    /// The graph with all that is known of it, in protobuf or as JSON. Arguments as above.
    fn export<'py>(
        &self,
        py: Python<'py>,
        is_json: bool,
        known: Vec<Known>,
        nodes: Vec<String>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let exported = py.detach(|| -> Result<Vec<u8>, String> {
            let srg = self
                .srg(&known, &nodes)
                .map_err(|error| error.to_string())?;
            match is_json {
                true => genie_srg::encode_json(&srg)
                    .map(String::into_bytes)
                    .map_err(|error| error.to_string()),
                false => Ok(genie_srg::encode_protobuf(&srg)),
            }
        });
        let exported = exported.map_err(PyValueError::new_err)?;
        Ok(PyBytes::new(py, &exported))
    }
}

impl Recorded {
    fn srg(&self, known: &[Known], nodes: &[String]) -> Result<ValidSrg, AnalysisError> {
        let mut reader = Reader::default();
        for event in &self.transcript.events {
            match event {
                Event::Record(written) => reader.record(written)?,
                Event::Freed(lane, id) => reader.freed(*lane, *id),
            }
        }
        let (graph, records) = reader.finish()?;
        let place = |&(captured, lane): &(usize, usize)| {
            let node = nodes.get(lane).cloned().unwrap_or_default();
            let Some((module, line, ran_us)) = known.get(captured).cloned() else {
                return Place {
                    node,
                    ..Place::default()
                };
            };
            Place {
                module,
                node,
                line,
                ran_us,
            }
        };
        let places: Vec<Place> = records.iter().map(place).collect();
        annotated(graph, &places)
    }
}

/// From what logs were given to a graph.
#[derive(Default)]
struct Reader {
    builder: Builder,
    /// Storages by their logs' names.
    storages: HashMap<(usize, u64), usize>,
    operators: HashMap<u32, String>,
    /// What was sent, until it is received.
    sent: Option<usize>,
    /// The record of each operator, and its lane.
    records: Vec<(usize, usize)>,
}

impl Reader {
    fn record(&mut self, written: &Written) -> Result<(), AnalysisError> {
        let lane = written.lane;
        match written.kind {
            // The same value, elsewhere.
            Kind::Recv => {
                if let Some(storage) = self.sent.take() {
                    self.storages.insert((lane, written.first_fresh), storage);
                    return Ok(());
                }
            }
            Kind::Send => {
                let sent = written.storages.first();
                self.sent = sent.map(|&id| self.storage(lane, id));
                return Ok(());
            }
            _ => {}
        }
        let externals = (written.storages.iter())
            .filter(|&&id| !self.storages.contains_key(&(lane, id)))
            .count();
        (self.builder).has_room(externals, written.storages.len(), written.fresh)?;
        let inputs: Vec<usize> = (written.storages.iter())
            .map(|&id| self.storage(lane, id))
            .collect();
        let name = (self.operators)
            .entry(written.op)
            .or_insert_with(|| Host.operator(written.op));
        let before = self.builder.next();
        let made = self.builder.call(&Call {
            kind: written.kind,
            name: matches!(written.kind, Kind::Op | Kind::CallSync).then_some(name.as_str()),
            skeleton: &written.skeleton,
            inputs: &inputs,
            params: &written.params,
            data: &written.data,
            tail: &written.tail,
            tail_numbers: &written.tail_numbers,
            fresh: written.fresh,
            is_backward: Some(written.is_backward),
        })?;
        for (id, storage) in (written.first_fresh..).zip(made) {
            self.storages.insert((lane, id), storage);
        }
        if self.builder.next() > before {
            self.records.push((written.captured, lane));
        }
        if written.kind.ends_segment() {
            self.builder.cut();
        }
        Ok(())
    }

    fn storage(&mut self, lane: usize, id: u64) -> usize {
        let builder = &mut self.builder;
        *(self.storages.entry((lane, id))).or_insert_with(|| builder.external(id))
    }

    fn freed(&mut self, lane: usize, id: u64) {
        if let Some(storage) = self.storages.remove(&(lane, id)) {
            self.builder.free(storage);
        }
    }

    fn finish(self) -> Result<(Graph, Vec<(usize, usize)>), AnalysisError> {
        Ok((self.builder.finish()?, self.records))
    }
}
