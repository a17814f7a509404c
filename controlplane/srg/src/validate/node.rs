//! The rules for one node.

use std::collections::HashMap;

use super::{At, check_annotations};
use crate::{Lineage, Modality, Node, Phase, Residency, SrgError, limits, node::Kind};

pub(super) fn check(node: &Node, by_id: &HashMap<u64, usize>) -> Result<(), SrgError> {
    let at = At::Node(node.id);
    check_kind(at, node)?;
    at.known::<Phase>("phase", node.phase)?;
    at.known::<Residency>("residency", node.residency)?;
    at.known::<Modality>("modality", node.modality)?;
    at.at_most(
        "bytes of semantic role",
        node.semantic_role.len(),
        limits::MAX_NAME_BYTES,
    )?;
    at.at_most(
        "bytes of module path",
        node.module_path.len(),
        limits::MAX_NAME_BYTES,
    )?;
    at.at_most(
        "bytes of colocation group",
        node.colocation_group.len(),
        limits::MAX_NAME_BYTES,
    )?;
    check_annotations(at, &node.annotations)?;
    if let Some(lineage) = &node.lineage {
        check_lineage(at, lineage, by_id)?;
    }
    if let Some(cost) = &node.cost {
        at.finite("intensity", cost.intensity)?;
    }
    Ok(())
}

fn check_kind(at: At<'_>, node: &Node) -> Result<(), SrgError> {
    match &node.kind {
        None => Err(at.missing("kind (operator, fused or input)")),
        Some(Kind::Operator(operator)) => {
            check_operator_name(at, &operator.name)?;
            check_call(at, &operator.call, &operator.parameters)
        }
        Some(Kind::Fused(fused)) => {
            if fused.operators.is_empty() {
                return Err(at.missing("the list of fused operators"));
            }
            at.at_most(
                "fused operators",
                fused.operators.len(),
                limits::MAX_FUSED_OPERATORS,
            )?;
            for name in &fused.operators {
                check_operator_name(at, name)?;
            }
            check_call(at, &fused.call, &fused.parameters)
        }
        Some(Kind::Input(input)) => {
            at.at_most("bytes of name", input.name.len(), limits::MAX_NAME_BYTES)
        }
    }
}

fn check_operator_name(at: At<'_>, name: &str) -> Result<(), SrgError> {
    at.at_most("bytes of operator name", name.len(), limits::MAX_NAME_BYTES)?;
    match name.split_once("::") {
        Some((namespace, operator)) if !namespace.is_empty() && !operator.is_empty() => Ok(()),
        _ => Err(SrgError::BadOperatorName {
            at: at.to_string(),
            name: name.to_owned(),
        }),
    }
}

fn check_call(at: At<'_>, call: &[u8], parameters: &[u8]) -> Result<(), SrgError> {
    at.at_most("bytes of call", call.len(), limits::MAX_CALL_BYTES)?;
    at.at_most(
        "bytes of parameters",
        parameters.len(),
        limits::MAX_CALL_BYTES,
    )
}

fn check_lineage(
    at: At<'_>,
    lineage: &Lineage,
    by_id: &HashMap<u64, usize>,
) -> Result<(), SrgError> {
    if let Some(forward) = lineage.forward_node
        && !by_id.contains_key(&forward)
    {
        return Err(SrgError::DanglingLineage {
            at: at.to_string(),
            forward,
        });
    }
    if let Some(source) = &lineage.source {
        at.at_most(
            "bytes of source file",
            source.file.len(),
            limits::MAX_PATH_BYTES,
        )?;
        at.at_most(
            "bytes of source function",
            source.function.len(),
            limits::MAX_NAME_BYTES,
        )?;
    }
    Ok(())
}
