//! Where the records of a segment run, of a session whose program chooses no device. A pure function of
//! what the client tells: it can ask any node.

use std::collections::{HashMap, HashSet};
use std::iter;

use genie_analysis::names::Names;
use genie_analysis::{AnalysisError, Graph, residency};
use genie_control_api::v1;
use genie_control_api::v1::placement_server::Placement;
use genie_planner::review::{Seen, Verdict};
use genie_planner::segment::{Act, Plan, Record, Segment, Step, Storage, Use};
use genie_planner::{Device, semantic};
use genie_session::WireError;
use genie_session::limits::LOGS_MAX;
use genie_session::places::Set;
use genie_session::plan::{RecordTemplate, Template};
use genie_session::record::Kind;
use genie_session::skeleton;
use tonic::{Request, Response, Status, async_trait};

use crate::service::{ControlPlane, identity_of};

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The session's devices.
    pub devices: Vec<Device>,
    /// Values from before the segment: their bytes, and who holds them.
    pub holdings: HashMap<u64, (u64, Set)>,
}

/// Decides where the records of a segment run. `None`: there is nothing to decide.
///
/// # Errors
/// Bytes that are no template, or no graph.
pub fn place(segment: &[u8], question: &Question) -> Result<Option<Plan>, AnalysisError> {
    let template = Template::decode(segment)?;
    let graph = Graph::of(&template)?;
    let bytes = |id: u64| question.holdings.get(&id).map_or(0, |&(bytes, _)| bytes);
    let states = residency::states(&graph, bytes);
    let mut reader = Reader::default();
    for record in &template.records {
        let numbers = template.numbers.get(record.numbers());
        let numbers = numbers.ok_or(WireError::Truncated)?;
        reader.record(record, numbers, question, &states)?;
    }
    Ok(semantic::plan(&reader.segment, &question.devices))
}

/// From a template to a planner's segment.
#[derive(Default)]
struct Reader {
    segment: Segment,
    names: Names,
}

impl Reader {
    fn record(
        &mut self,
        record: &RecordTemplate,
        numbers: &[i64],
        question: &Question,
        states: &HashSet<u64>,
    ) -> Result<(), WireError> {
        let shape = &record.shape;
        let storages = &mut self.segment.storages;
        let named = self.names.resolve(&shape.refs, numbers, |id| {
            let (bytes, at) = question.holdings.get(&id).copied().unwrap_or_default();
            let is_state = states.contains(&id);
            storages.push(Storage {
                bytes,
                at,
                is_state,
            });
            storages.len() - 1
        })?;
        let writes = shape.written.iter().copied().chain(iter::repeat(false));
        let takes = (named.into_iter().zip(writes))
            .map(|(storage, writes)| Use { storage, writes })
            .collect();
        let tail = record.structure.get(shape.tail..).unwrap_or_default();
        let tail_numbers = &numbers[numbers.len() - shape.tail_numbers.min(numbers.len())..];
        let made = match record.kind {
            Kind::Op => skeleton::fresh_bytes(tail, tail_numbers)?,
            Kind::Alloc | Kind::Upload if shape.fresh == 1 => {
                let bytes = tail_numbers.first().copied().unwrap_or_default();
                vec![u64::try_from(bytes).unwrap_or_default()]
            }
            // What a synchronous operator makes only the node can tell.
            _ => vec![0; usize::try_from(shape.fresh).unwrap_or_default()],
        };
        let makes = made.into_iter().map(|bytes| self.make(bytes)).collect();
        self.segment.records.push(Record { takes, makes });
        Ok(())
    }

    fn make(&mut self, bytes: u64) -> usize {
        let storage = self.segment.storages.len();
        self.segment.storages.push(Storage {
            bytes,
            ..Storage::default()
        });
        self.names.make(storage);
        storage
    }
}

fn told(step: &Step) -> Option<v1::PlanStep> {
    let act = match step.act {
        Act::Send => v1::plan_step::Act::Send,
        Act::Drop => v1::plan_step::Act::Drop,
    };
    let number = |number: usize| u32::try_from(number).ok();
    Some(v1::PlanStep {
        record: number(step.record)?,
        act: act.into(),
        value: number(step.value)?,
        device: number(step.device)?,
    })
}

/// How many devices a session has, by what a client says.
fn counted(devices: &[v1::DeviceState]) -> Result<usize, Status> {
    match devices.len() {
        count @ 1..=LOGS_MAX => Ok(count),
        count => Err(Status::invalid_argument(format!(
            "{count} devices: a session has one at least and {LOGS_MAX} at most"
        ))),
    }
}

impl TryFrom<&v1::PlaceRequest> for Question {
    type Error = Status;

    fn try_from(request: &v1::PlaceRequest) -> Result<Self, Status> {
        let count = counted(&request.devices)?;
        let device = |state: &v1::DeviceState| Device {
            alive: state.alive,
            held_bytes: state.held_bytes,
            limit_bytes: state.limit_bytes,
            ..Device::default()
        };
        let mut holdings = HashMap::with_capacity(request.holdings.len());
        for holding in &request.holdings {
            let mut at = Set::EMPTY;
            for &device in &holding.devices {
                let device = usize::try_from(device).ok().filter(|&at| at < count);
                at = at.with(device.ok_or_else(|| {
                    Status::invalid_argument("a value is at a device that is not there")
                })?);
            }
            holdings.insert(holding.value, (holding.bytes, at));
        }
        Ok(Self {
            devices: request.devices.iter().map(device).collect(),
            holdings,
        })
    }
}

#[async_trait]
impl Placement for ControlPlane {
    async fn place(
        &self,
        request: Request<v1::PlaceRequest>,
    ) -> Result<Response<v1::PlaceReply>, Status> {
        let identity = identity_of(&request)?;
        let request = request.into_inner();
        let session = self.authenticate(request.session_id, &identity, &request.data_token)?;
        let question = Question::try_from(&request)?;
        let segment = request.segment;
        let used_bytes = question.holdings.values().map(|&(bytes, _)| bytes).sum();
        let plan = self.behind(move || place(&segment, &question)).await?;
        if request.plan != 0 {
            let predicted = plan.as_ref().map(|plan| plan.transfer_bytes);
            let (plan, before) = (request.plan, request.before);
            (session.plans.lock()).open(plan, before, predicted, used_bytes);
        }
        let plan = plan.unwrap_or_default();
        tracing::debug!(
            session = session.id,
            states = plan.states,
            transfers = plan.transfers,
            "a segment of {} records is placed",
            plan.places.len()
        );
        // There are no more devices than a byte tells.
        let places = plan.places.iter().map(|&at| u8::try_from(at).unwrap_or(0));
        Ok(Response::new(v1::PlaceReply {
            places: places.collect(),
            states: u32::try_from(plan.states).unwrap_or(u32::MAX),
            transfer_bytes: plan.transfer_bytes,
            steps: plan.steps.iter().filter_map(told).collect(),
        }))
    }

    async fn observe(
        &self,
        request: Request<v1::ObserveRequest>,
    ) -> Result<Response<v1::ObserveReply>, Status> {
        let identity = identity_of(&request)?;
        let request = request.into_inner();
        let session = self.authenticate(request.session_id, &identity, &request.data_token)?;
        let mut reply = v1::ObserveReply::default();
        counted(&request.devices)?;
        let mut books = session.plans.lock();
        books.observe_devices(request.devices);
        for stats in request.plans {
            let seen = Seen {
                steps: stats.steps,
                moved_bytes: stats.moved_bytes,
                used_bytes: stats.used_bytes,
                ns: stats.step_ns,
            };
            match books.observe(stats.plan, stats.placed, seen) {
                Verdict::Keep => {}
                Verdict::Again => reply.again.push(stats.plan),
                Verdict::Drop => reply.drop.push(stats.plan),
            }
        }
        Ok(Response::new(reply))
    }

    async fn load(
        &self,
        request: Request<v1::LoadRequest>,
    ) -> Result<Response<v1::LoadReply>, Status> {
        let identity = identity_of(&request)?;
        let request = request.into_inner();
        let session = self.authenticate(request.session_id, &identity, &request.data_token)?;
        let load = self.node().load(session.id).await?;
        Ok(Response::new(v1::LoadReply {
            busy_ns: u64::try_from(load.busy.as_nanos()).unwrap_or(u64::MAX),
            others_bytes: load.others_bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use genie_session::client::Draft;
    use genie_session::outline::{Outline, Seen};
    use genie_session::skeleton::{out, tag};

    use super::*;

    const F32: u8 = 6;

    fn tensor() -> [u8; 4] {
        [tag::TENSOR, 0, F32, 4]
    }

    /// A step that makes the caches of two layers longer and reads them; the weights are 1 and 2.
    fn decode(tokens: i64) -> (Vec<u8>, Vec<u64>) {
        let mut outline = Outline::new();
        let alloc = Draft::alloc(&[8]);
        for _ in 0..5 {
            outline.place(&alloc);
            outline.commit(&alloc, false);
        }
        outline.cut(Seen::default());
        let pair: Vec<u8> = [tensor(), tensor()].concat();
        let list: Vec<u8> = [&[tag::LIST, 2, 0][..], &pair].concat();
        let row = [0, 1, 2, 1, 4, 8, 4, 4, 1];
        let cache = |tokens: i64| [0, 1, 2, tokens, 4, 8 * tokens, 4 * tokens, 4, 1];
        let mut append = |op: u32,
                          name: &str,
                          skeleton: &[u8],
                          values: &[u64],
                          sizes: [[i64; 9]; 2],
                          made: &[i64]| {
            outline.define_op(op, name);
            let first = outline.next();
            let draft = Draft {
                op,
                skeleton,
                storages: values,
                params: &sizes.concat(),
                tail: &[out::FRESH, F32, 4],
                tail_numbers: &made[1..],
                fresh: 1,
                ..Draft::new(Kind::Op)
            };
            outline.place(&draft);
            outline.commit(&draft, false);
            first
        };
        let mut token = 5;
        for layer in 0..2_u64 {
            let query = append(
                1,
                "aten::mul.Tensor",
                &pair,
                &[1 + layer, token],
                [row, row],
                &row,
            );
            let grown = append(
                2,
                "aten::cat",
                &list,
                &[3 + layer, query],
                [cache(tokens), row],
                &cache(tokens + 1),
            );
            token = append(
                3,
                "aten::mul.Tensor",
                &pair,
                &[grown, query],
                [cache(tokens + 1), row],
                &row,
            );
        }
        let question = outline.cut(Seen::default()).unwrap();
        (question.segment, question.externals)
    }

    fn question(places: [usize; 5]) -> Question {
        let device = Device {
            alive: true,
            limit_bytes: 1 << 30,
            ..Device::default()
        };
        let holding = |(value, at): (u64, usize)| (value, (1 << 10, Set::EMPTY.with(at)));
        Question {
            devices: vec![device; 2],
            holdings: (1..).zip(places).map(holding).collect(),
        }
    }

    #[test]
    fn what_grows_is_state_and_pins_what_reads_it() {
        let (segment, externals) = decode(7);
        assert_eq!(externals, [1, 5, 3, 2, 4]);
        let plan = place(&segment, &question([0, 0, 1, 1, 0])).unwrap();
        let plan = plan.unwrap();
        assert_eq!(plan.states, 2);
        assert_eq!(plan.places, [0, 1, 1, 0, 1, 1], "{plan:?}");
        // The next token is the same structure.
        let (longer, _) = decode(8);
        let again = place(&longer, &question([0, 0, 1, 1, 0])).unwrap();
        assert_eq!(again.unwrap().places, plan.places);
    }

    #[test]
    fn a_request_that_names_what_is_not_there_is_refused() {
        let device = v1::DeviceState {
            alive: true,
            ..v1::DeviceState::default()
        };
        let mut request = v1::PlaceRequest {
            devices: vec![device; 2],
            holdings: vec![v1::Holding {
                value: 1,
                bytes: 8,
                devices: vec![2],
            }],
            ..v1::PlaceRequest::default()
        };
        assert!(Question::try_from(&request).is_err());
        request.holdings[0].devices = vec![1];
        assert!(Question::try_from(&request).is_ok());
        request.devices.clear();
        assert!(Question::try_from(&request).is_err());
        request.devices = vec![v1::DeviceState::default(); LOGS_MAX + 1];
        assert!(Question::try_from(&request).is_err());
    }
}
