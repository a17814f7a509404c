//! What `GENIE_LOG` says: `debug`, or `plans=debug,session=info`, or both.

/// The parts of the client that say something.
pub const COMPONENTS: [&str; 5] = ["capture", "link", "plans", "session", "values"];

/// From nothing to everything.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What a filter asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// The level of each component; none says nothing.
    pub levels: Vec<(&'static str, &'static str)>,
    /// Parts that were not understood.
    pub unknown: Vec<String>,
}

/// Reads a filter; later parts win, a component's over a level of all. What a daemon of the same
/// environment is asked (`genie_dataplane=debug`) is passed over.
#[must_use]
pub fn parse(text: &str) -> LogFilter {
    let mut found = LogFilter::default();
    let (mut of_all, mut own) = ("off", [None; COMPONENTS.len()]);
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (name, level) = part.split_once('=').unwrap_or(("", part));
        let level = LEVELS
            .iter()
            .find(|known| known.eq_ignore_ascii_case(level.trim()));
        let component = COMPONENTS.iter().position(|known| *known == name.trim());
        match (level, component) {
            (Some(level), _) if name.is_empty() => of_all = level,
            (Some(level), Some(at)) => own[at] = Some(*level),
            _ if name.trim().starts_with("genie_") => {}
            _ => found.unknown.push(part.to_owned()),
        }
    }
    let levels = COMPONENTS.iter().zip(own);
    found.levels = levels
        .map(|(name, level)| (*name, level.unwrap_or(of_all)))
        .collect();
    found
}

/// What to say of parts that were not understood.
#[must_use]
pub fn complaint(unknown: &[String]) -> String {
    format!(
        "GENIE_LOG: not understood: {}. It takes LEVEL or COMPONENT=LEVEL, with commas between; \
         levels are {}, components are {}",
        unknown.join(", "),
        LEVELS.join(", "),
        COMPONENTS.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(text: &str, component: &str) -> &'static str {
        let found = parse(text).levels;
        let of = found.iter().find(|(name, _)| *name == component);
        of.expect("a component").1
    }

    #[test]
    fn levels_of_all_and_of_one() {
        assert_eq!(level("debug", "plans"), "debug");
        assert_eq!(level("plans=debug", "plans"), "debug");
        assert_eq!(level("plans=debug", "session"), "off");
        assert_eq!(level("info, plans=trace", "session"), "info");
        assert_eq!(
            level("plans=trace,info", "plans"),
            "trace",
            "one's own wins"
        );
        assert_eq!(level("info,debug", "link"), "debug", "the later one wins");
        assert_eq!(level("INFO,Plans=debug", "link"), "info");
        assert_eq!(level("", "link"), "off");
    }

    #[test]
    fn what_is_not_understood_is_told() {
        let found = parse("plan=debug, session=loud, =info, genie_dataplane=debug, info");
        assert_eq!(found.unknown, ["plan=debug", "session=loud"]);
        let text = complaint(&found.unknown);
        assert!(text.contains("plan=debug, session=loud"), "{text}");
        assert!(text.contains("capture, link, plans"), "{text}");
        assert!(parse("info,session=debug").unknown.is_empty());
    }
}
