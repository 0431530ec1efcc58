//! Behaviour of scopes, checked against brute force.
//!
//! The references here share no code with the matchers: they expand patterns and targets to lists of
//! parts and compare those one by one. Where the alphabet is small enough every pattern is compared with
//! every other over every target; proptest covers longer and stranger text.

use std::{net::IpAddr, path::Path};

use proptest::prelude::*;

use super::*;

mod named;
mod slow;

fn cap(kind: Kind, scope: &str) -> Capability {
    Capability::new(kind, scope).unwrap_or_else(|e| panic!("{scope:?}: {e}"))
}

fn covers(kind: Kind, scope: &str, target: &str) -> bool {
    cap(kind, scope).covers(&Access::new(kind, target))
}

/// All words over `alphabet` of `1..=max` symbols, joined by `separator`.
fn words(alphabet: &[&str], max: usize, separator: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut last: Vec<String> = vec![String::new()];
    for length in 0..max {
        last = last
            .iter()
            .flat_map(|w| {
                let separator = if length == 0 { "" } else { separator };
                alphabet.iter().map(move |a| format!("{w}{separator}{a}"))
            })
            .collect();
        all.extend(last.iter().cloned());
    }
    all
}

/// One kind of each form.
const FORMS: [Kind; 4] = [Kind::FsRead, Kind::NetHttp, Kind::EventPublish, Kind::Secret];

// ---- exhaustive comparison over a small alphabet -----------------------------------------------------

/// All patterns of a form over a small alphabet, and targets enough to tell any two of them apart: two
/// symbols (so that a wildcard can differ from a literal) and one part more than the longest pattern (so
/// that an open end can differ from a closed one).
fn small_world(kind: Kind) -> (Vec<String>, Vec<String>) {
    match kind.scope_form() {
        ScopeForm::Path => {
            let paths = |depth| {
                let mut all: Vec<String> =
                    words(&["a", "b"], depth, "/").iter().map(|w| format!("/{w}")).collect();
                all.push("/".into());
                all
            };
            let mut patterns = paths(3);
            patterns.extend(paths(3).iter().map(|p| format!("{}/**", p.trim_end_matches('/'))));
            (patterns, paths(4))
        }
        ScopeForm::Authority => {
            let hosts = words(&["a", "b"], 3, ".");
            let mut host_patterns: Vec<String> = hosts.clone();
            host_patterns
                .extend(hosts.iter().filter(|h| h.contains('.')).map(|h| format!("*.{h}")));
            host_patterns.extend(["*".into(), "10.0.0.1".into(), "[::1]".into()]);
            let patterns = host_patterns
                .iter()
                .flat_map(|h| ["1", "2", "*"].map(|p| format!("{h}:{p}")))
                .collect();
            let mut target_hosts = words(&["a", "b"], 4, ".");
            target_hosts.extend(["10.0.0.1".into(), "[::1]".into(), "10.0.0.2".into()]);
            let targets = target_hosts
                .iter()
                .flat_map(|h| ["1", "2", "3"].map(|p| format!("{h}:{p}")))
                .collect();
            (patterns, targets)
        }
        ScopeForm::Subject => {
            let patterns = words(&["a", "b", "*", ">"], 3, ".")
                .into_iter()
                .filter(|p| !p.trim_end_matches('>').contains('>'))
                .filter(|p| p.matches('>').count() <= 1)
                .collect();
            (patterns, words(&["a", "b"], 4, "."))
        }
        ScopeForm::Name => {
            let mut patterns = words(&["a", "b"], 3, "");
            patterns.extend(words(&["a", "b"], 3, "").iter().map(|p| format!("{p}*")));
            patterns.push("*".into());
            (patterns, words(&["a", "b"], 4, ""))
        }
    }
}

#[test]
fn every_small_pattern_covers_what_the_reference_covers() {
    for kind in FORMS {
        let (patterns, targets) = small_world(kind);
        for p in &patterns {
            let c = cap(kind, p);
            for t in &targets {
                assert_eq!(
                    c.covers(&Access::new(kind, t)),
                    slow::covers(kind, p, t),
                    "{kind}: {p} on {t}"
                );
            }
        }
    }
}

#[test]
fn every_small_pair_is_a_subset_exactly_when_no_target_tells_them_apart() {
    for kind in FORMS {
        let (patterns, targets) = small_world(kind);
        let covered: Vec<Vec<bool>> = patterns
            .iter()
            .map(|p| targets.iter().map(|t| slow::covers(kind, p, t)).collect())
            .collect();
        let caps: Vec<Capability> = patterns.iter().map(|p| cap(kind, p)).collect();
        let mut subsets = 0;
        for (a, in_a) in caps.iter().zip(&covered) {
            for (b, in_b) in caps.iter().zip(&covered) {
                let shown = in_a.iter().zip(in_b).any(|(a, b)| *a && !*b);
                assert_eq!(a.is_subset_of(b), !shown, "{a} within {b}");
                subsets += usize::from(!shown);
            }
        }
        assert!(subsets > caps.len(), "{kind}: the small world has no true subset");
    }
}

/// The one place where "no" is too strict: the bound on targets, not the pattern, keeps the sets equal.
#[test]
fn at_the_length_bounds_the_form_decides() {
    let name = "n".repeat(256);
    let (open, closed) = (cap(Kind::Secret, &format!("{name}*")), cap(Kind::Secret, &name));
    assert!(closed.is_subset_of(&open) && !open.is_subset_of(&closed));
    let front = "t.".repeat(15);
    let (rest, one) = (
        cap(Kind::EventPublish, &format!("{front}>")),
        cap(Kind::EventPublish, &format!("{front}*")),
    );
    assert!(one.is_subset_of(&rest) && !rest.is_subset_of(&one));
    assert!(!rest.covers(&Access::new(Kind::EventPublish, &format!("{front}t.t"))));
}

#[test]
fn kinds_never_cover_each_other() {
    for a in Kind::ALL {
        for b in Kind::ALL.iter().filter(|b| a != *b && a.scope_form() == b.scope_form()) {
            let scope = match a.scope_form() {
                ScopeForm::Path => "/**",
                ScopeForm::Authority => "*:*",
                ScopeForm::Subject => ">",
                ScopeForm::Name => "*",
            };
            let target = match a.scope_form() {
                ScopeForm::Path => "/x",
                ScopeForm::Authority => "x.org:1",
                ScopeForm::Subject | ScopeForm::Name => "x",
            };
            assert!(covers(*a, scope, target));
            assert!(!cap(*a, scope).covers(&Access::new(*b, target)), "{a} covers {b}");
            assert!(!cap(*a, scope).is_subset_of(&cap(*b, scope)), "{a} within {b}");
        }
    }
}

// ---- random text -------------------------------------------------------------------------------------

/// Targets around the edge of what is valid for a form.
fn odd_target(kind: Kind) -> BoxedStrategy<String> {
    match kind.scope_form() {
        ScopeForm::Path => "(/{0,2}(a|b|A|ab|\\.|\\.\\.|…|\\*|\\*\\*|\u{7}|ａ)){0,5}/{0,2}".boxed(),
        ScopeForm::Authority => {
            "(\\*\\.|[aAbé_@-]|10\\.|0x|\\[::1\\]|1|\\.){0,6}(:(0|1|2|443|65535|65536|0?1|\\*|))?"
                .boxed()
        }
        ScopeForm::Subject => "(a|b|A|\\*|>|é|a b|)(\\.(a|b|A|\\*|>|)){0,4}".boxed(),
        ScopeForm::Name => "([abA.:/é\n*-]){0,5}".boxed(),
    }
}

fn form() -> impl Strategy<Value = Kind> {
    proptest::sample::select(FORMS.to_vec())
}

fn scope_and_target() -> impl Strategy<Value = (Kind, String, String)> {
    form().prop_flat_map(|k| {
        let scopes = small_world(k).0;
        (Just(k), proptest::sample::select(scopes), odd_target(k))
    })
}

fn any_capability() -> impl Strategy<Value = Capability> {
    form()
        .prop_flat_map(|k| proptest::sample::select(small_world(k).0).prop_map(move |s| cap(k, &s)))
}

fn any_set(most: usize) -> impl Strategy<Value = CapabilitySet> {
    proptest::collection::vec(any_capability(), 0..most).prop_map(CapabilitySet::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..Default::default() })]

    #[test]
    fn odd_targets_are_covered_as_the_reference_says((kind, scope, target) in scope_and_target()) {
        prop_assert_eq!(covers(kind, &scope, &target), slow::covers(kind, &scope, &target));
    }

    #[test]
    fn odd_scopes_parse_or_are_refused_and_then_match_as_the_reference_says(
        (kind, scope, target) in form().prop_flat_map(|k| (Just(k), odd_target(k), odd_target(k)))
    ) {
        if let Ok(c) = Capability::new(kind, &scope) {
            prop_assert_eq!(
                c.covers(&Access::new(kind, &target)),
                slow::covers(kind, &scope, &target),
                "{} on {:?}", c, target
            );
        }
    }

    #[test]
    fn the_canonical_target_is_covered_by_the_same_rights((kind, scope, target) in scope_and_target()) {
        let c = cap(kind, &scope);
        let access = Access::new(kind, &target);
        match access.canonical_target() {
            Some(canonical) => {
                let again = Access::new(kind, &canonical);
                prop_assert_eq!(c.covers(&access), c.covers(&again));
                let twice = again.canonical_target();
                prop_assert_eq!(twice.as_deref(), Some(&*canonical));
            }
            None => prop_assert!(!c.covers(&access)),
        }
    }

    #[test]
    fn printed_capabilities_parse_back(
        (kind, scope) in form().prop_flat_map(|k| (Just(k), odd_target(k)))
    ) {
        if let Ok(c) = Capability::new(kind, &scope) {
            prop_assert_eq!(&c.to_string().parse::<Capability>().unwrap(), &c);
            let json = serde_json::to_string(&c).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Capability>(&json).unwrap(), &c);
        }
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in any::<String>(), target in any::<String>()) {
        let _ = text.parse::<Capability>();
        for kind in Kind::ALL {
            if let Ok(c) = Capability::new(*kind, &text) {
                let _ = c.covers(&Access::new(*kind, &target));
                prop_assert!(c.is_subset_of(&c));
                prop_assert_eq!(&c.to_string().parse::<Capability>().unwrap(), &c);
            }
        }
        let _ = (parse_host(&text), normalize_path(&text), is_valid_subject(&text));
    }

    #[test]
    fn a_subset_of_rights_allows_nothing_more(a in any_set(4), b in any_set(100)) {
        if a.is_subset_of(&b) {
            for kind in FORMS {
                for t in small_world(kind).1 {
                    let access = Access::new(kind, &t);
                    prop_assert!(a.allows(&access).is_none() || b.allows(&access).is_some(), "{}", access);
                }
            }
        }
        prop_assert!(a.is_subset_of(&a));
        let mut both = a.clone();
        both.extend(b.iter().cloned());
        prop_assert!(a.is_subset_of(&both) && b.is_subset_of(&both));
    }

    #[test]
    fn a_set_allows_what_one_of_its_members_covers(set in any_set(6), (kind, _, target) in scope_and_target()) {
        let access = Access::new(kind, &target);
        let expected = set.iter().any(|c| slow::covers(c.kind(), &c.scope().to_string(), &target) && c.kind() == kind);
        prop_assert_eq!(set.allows(&access).is_some(), expected);
        prop_assert!(set.allows(&access).is_none_or(|c| c.covers(&access)));
    }
}
