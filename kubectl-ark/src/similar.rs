//! "Did you mean": names that are nearly what was typed.

/// How many are told.
const TOLD: usize = 3;

/// Those of `names` that are nearly `typed`, the nearest first. A name that ends with a time counts without it, too: who types
/// `nigthly` means backups of schedule `nightly`.
pub fn near<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        .filter(|name| *name != typed)
        .filter_map(|name| {
            let stem = crate::records::stem(name).map(|stem| distance(typed, stem));
            let whole = distance(typed, name);
            let distance = match stem {
                // The whole name is nearer than one that only has the right beginning.
                Some(stem) => whole.min(stem + 1),
                None => whole,
            };
            (distance <= allowed(typed)).then_some((distance, name))
        })
        .collect();
    // Of those of a schedule, the newest.
    found.sort_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(one.1)));
    found.dedup();
    found.into_iter().take(TOLD).map(|(_, name)| name).collect()
}

/// The question, if there is one to ask.
pub fn did_you_mean<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    match near(typed, names).as_slice() {
        [] => None,
        [one] => Some(format!("did you mean {one}?")),
        [more @ .., last] => Some(format!("did you mean {} or {last}?", more.join(", "))),
    }
}

/// The question, and what else is to be said.
pub fn with_question(question: Option<String>, otherwise: String) -> String {
    match question {
        Some(question) => format!("{question} {otherwise}"),
        None => otherwise,
    }
}

fn distance(one: &str, other: &str) -> usize {
    strsim::osa_distance(one, other)
}

/// A third of the name may be wrong, but no more than three characters: otherwise everything is similar.
fn allowed(typed: &str) -> usize {
    (typed.chars().count() / 3).clamp(1, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_found_and_what_is_far_is_not() {
        let names = ["shop", "shop-2", "staging", "web"];
        assert_eq!(near("shpo", names), ["shop"]);
        assert_eq!(near("shop-1", names), ["shop-2", "shop"]);
        assert_eq!(near("stagign", names), ["staging"]);
        assert_eq!(near("wbe", names), ["web"]);
        assert_eq!(near("other", names), [""; 0]);
        assert_eq!(near("x", names), [""; 0]);
    }

    #[test]
    fn backups_of_a_schedule_are_found_by_its_name() {
        let names = [
            "nightly-20261121201501",
            "nightly-20261123201501",
            "nightly-20261122201501",
            "nightly-20261120201501",
            "hourly-20261123201501",
        ];
        assert_eq!(
            near("nigthly", names),
            [
                "nightly-20261123201501",
                "nightly-20261122201501",
                "nightly-20261121201501"
            ]
        );
        assert_eq!(
            did_you_mean("nightly-20261120201510", names[3..4].iter().copied()).as_deref(),
            Some("did you mean nightly-20261120201501?")
        );
    }

    #[test]
    fn the_question_reads_like_one() {
        assert_eq!(
            did_you_mean("aab", ["aaa", "aac"]).as_deref(),
            Some("did you mean aac or aaa?")
        );
        assert_eq!(did_you_mean("aab", []), None);
    }
}
