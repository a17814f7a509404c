//! `genie-hugepages reserve`.

use std::fmt::Write as _;

use genie_hugepages::reserve::Plan;
use genie_hugepages::{Advice, Inventory, NodeId, ReserveRequest, Root};

use super::options::Reserve;
use crate::{Failure, Outcome};

pub fn run(root: &Root, options: &Reserve) -> Result<Outcome, Failure> {
    let found = Inventory::read(root)?;
    let page = options
        .page
        .or(found.default_page)
        .ok_or("this kernel has no huge pages; boot one with CONFIG_HUGETLBFS")?;
    let request = ReserveRequest {
        page,
        pages: options.size.in_pages(page),
        node: options.node,
    };
    let mut text = String::new();
    let (plan, short) = if options.dry_run {
        let plan = Plan::new(root, &found, &request)?;
        for step in plan.steps.iter().filter(|step| step.add > 0) {
            writeln!(
                text,
                "would ask {} for {} x {page} more, beside {} ({})",
                place(step.node),
                step.add,
                step.before,
                step.file.display()
            )?;
        }
        let withheld = plan.withheld;
        (plan, withheld)
    } else {
        let reservation = genie_hugepages::reserve(root, &request)?;
        let (plan, short) = (reservation.plan().clone(), reservation.short());
        for (step, added) in plan.steps.iter().zip(reservation.keep()) {
            writeln!(
                text,
                "{}: asked for {} x {page} more, got {}; before: {} ({})",
                place(added.node),
                step.add,
                added.pages,
                added.before,
                added.file.display()
            )?;
        }
        (plan, short)
    };
    summary(&mut text, options, &plan, short)?;
    advice(&mut text, &found, &plan)?;
    Ok(Outcome {
        text,
        status: u8::from(short > 0),
    })
}

fn place(node: Option<NodeId>) -> String {
    node.map_or("the machine".to_owned(), |node| format!("node {node}"))
}

fn summary(
    text: &mut String,
    options: &Reserve,
    plan: &Plan,
    short: u64,
) -> Result<(), std::fmt::Error> {
    let ReserveRequest { page, pages, .. } = plan.request;
    let size = options.size;
    let there = pages.saturating_sub(short);
    match (short, options.dry_run) {
        (0, _) if plan.missing == 0 => {
            writeln!(
                text,
                "{size}: {} pages ({page}) are free already",
                plan.usable
            )?;
        }
        (0, true) => writeln!(
            text,
            "{size} ({pages} x {page}) would be free, if all of it comes"
        )?,
        (0, false) => writeln!(text, "{size} ({pages} x {page}) is free")?,
        (_, true) => writeln!(
            text,
            "{size}: {there} of {pages} pages ({page}) could be free"
        )?,
        (_, false) => writeln!(
            text,
            "{size}: only {there} of {pages} pages ({page}) are free"
        )?,
    }
    if plan.withheld > 0 {
        writeln!(
            text,
            "{} pages were not asked for: they would leave the machine without memory",
            plan.withheld
        )?;
    }
    if short > plan.withheld {
        writeln!(
            text,
            "the kernel found no room for {} pages; memory is fragmented. Try: \
             echo 1 > /proc/sys/vm/compact_memory, or reserve at boot",
            short - plan.withheld
        )?;
    }
    Ok(())
}

/// What keeps it. Pools that nothing is asked of keep what they have.
fn advice(text: &mut String, found: &Inventory, plan: &Plan) -> Result<(), std::fmt::Error> {
    let page = plan.request.page;
    let pools: Vec<_> = found
        .pools_of(page, None)
        .map(|pool| {
            let step = plan.steps.iter().find(|step| step.node == pool.node);
            (
                pool.node,
                pool.persistent() + step.map_or(0, |step| step.add),
            )
        })
        .collect();
    let advice = Advice::new(found, page, &pools, plan.request.node.is_some());
    writeln!(text, "\nTo have it after a boot, one of:")?;
    writeln!(text, "  boot parameters: {}", advice.boot)?;
    match &advice.sysctl {
        Some(line) => writeln!(text, "  /etc/sysctl.d/80-genie-hugepages.conf: {line}")?,
        None => writeln!(
            text,
            "  /etc/sysctl.d: can't say it (it counts pages of the default size on all nodes)"
        )?,
    }
    for line in &advice.tmpfiles {
        writeln!(text, "  /etc/tmpfiles.d/genie-hugepages.conf: {line}")?;
    }
    Ok(())
}
