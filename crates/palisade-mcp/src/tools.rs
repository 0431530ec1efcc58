//! The server's tools: which of a list may be seen, and how each that was seen stands.

use std::collections::{HashMap, HashSet};

use palisade_model::{Access, Kind};
use tokio::time::Instant;

use crate::{
    McpError, Pins, Sight, Subject,
    json::{Object, Unclear, canonical, filtered, items, replace, string},
};

/// Most tools that are kept in mind; those beyond are withheld.
const TOOLS: usize = 1024;
/// Longest name of a tool, in bytes: a name of a right has no more.
const NAME_BYTES: usize = 256;

/// Why a tool of a list was taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Withheld {
    /// No right covers it.
    NotCovered,
    /// Its definition is not the one that was approved.
    Changed,
    /// Nobody has approved it.
    Unapproved,
    /// Its definition could be read in two ways, or there are too many. Says which.
    Unsound(String),
}

/// How a tool stands that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It was shown to the client.
    Offered,
    /// It was not.
    Withheld(Withheld),
}

/// What is known of the server's tools.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    known: HashMap<String, Standing>,
    /// When the whole list was seen last, unless it has changed since.
    pub(crate) whole_at: Option<Instant>,
    told: HashSet<String>,
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    /// The result with tools taken out; `None` where all may stay.
    pub(crate) text: Option<String>,
    /// Where the next page begins, as it is spelled.
    pub(crate) cursor: Option<String>,
    /// What was taken out, by name (as the server wrote it).
    pub(crate) withheld: Vec<(String, Withheld)>,
    /// What was pinned now.
    pub(crate) pinned: Vec<String>,
}

/// Why a page cannot be shown.
#[derive(Debug)]
pub(crate) enum BadPage {
    Unclear(Unclear),
    Pins(McpError),
}

impl From<Unclear> for BadPage {
    fn from(unclear: Unclear) -> Self {
        Self::Unclear(unclear)
    }
}

struct Seen<'a> {
    name: String,
    verdict: Result<String, Withheld>,
    item: &'a str,
}

impl Tools {
    /// How the tool `name` stands; `None` where it was not seen.
    pub(crate) fn standing(&self, name: &str) -> Option<&Standing> {
        self.known.get(name)
    }

    /// The list has changed: what was seen does not count any more.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.whole_at = None;
    }

    /// Whether this is the first time that `what` is told.
    pub(crate) fn tell(&mut self, what: String) -> bool {
        self.told.len() < 4 * TOOLS && self.told.insert(what)
    }

    /// Takes one page.
    pub(crate) fn page(
        &mut self,
        result: &str,
        covered: impl Fn(&str) -> bool,
        pins: &dyn Pins,
    ) -> Result<Page, BadPage> {
        let object = Object::read(result, &["tools", "nextCursor"])?;
        let list = object.get("tools").ok_or(Unclear::Shape)?;
        let cursor = object.get("nextCursor").filter(|raw| *raw != "null").map(str::to_owned);
        let tools = items(list).ok_or(Unclear::Shape)?;
        let mut room = TOOLS.saturating_sub(self.known.len());
        let mut seen: Vec<Seen<'_>> =
            tools.into_iter().map(|item| self.read(item, &covered, &mut room)).collect();
        let looked: Vec<(Subject<'_>, &str)> = seen
            .iter()
            .filter_map(|s| Some((Subject::Tool(&s.name), s.verdict.as_deref().ok()?)))
            .collect();
        let sights = pins.look(&looked).map_err(BadPage::Pins)?;
        let mut sights = sights.into_iter();
        let mut pinned = Vec::new();
        for one in &mut seen {
            if one.verdict.is_err() {
                continue;
            }
            match sights.next() {
                Some(Sight::Same) => {}
                Some(Sight::First) => pinned.push(one.name.clone()),
                Some(Sight::Changed) => one.verdict = Err(Withheld::Changed),
                Some(Sight::Unapproved) | None => one.verdict = Err(Withheld::Unapproved),
            }
        }
        let (mut keep, mut withheld, mut offered) = (Vec::new(), Vec::new(), HashSet::new());
        for Seen { name, verdict, .. } in &seen {
            // A name that stands twice is shown once; which one a client would take cannot be known.
            let verdict = match verdict {
                Ok(_) if offered.contains(name) => {
                    Err(Withheld::Unsound("its name stands twice".into()))
                }
                Ok(_) => Ok(()),
                Err(why) => Err(why.clone()),
            };
            keep.push(verdict.is_ok());
            match verdict {
                Ok(()) => {
                    offered.insert(name.clone());
                    self.known.insert(name.clone(), Standing::Offered);
                }
                Err(why) => {
                    if !offered.contains(name)
                        && why != Withheld::NotCovered
                        && (self.known.len() < TOOLS || self.known.contains_key(name))
                    {
                        self.known.insert(name.clone(), Standing::Withheld(why.clone()));
                    }
                    withheld.push((name.clone(), why));
                }
            }
        }
        let text = if keep.iter().all(|keep| *keep) {
            None
        } else {
            let items: Vec<&str> = seen.iter().map(|s| s.item).collect();
            let less = filtered(list, &items, &keep).ok_or(Unclear::Shape)?;
            Some(replace(result, list, &less).ok_or(Unclear::Shape)?)
        };
        Ok(Page { text, cursor, withheld, pinned })
    }

    /// Reads one tool. `room` says how many more new ones there may be.
    fn read<'a>(
        &self,
        item: &'a str,
        covered: impl Fn(&str) -> bool,
        room: &mut usize,
    ) -> Seen<'a> {
        let unsound = |name: &str, why: String| Seen {
            name: name.to_owned(),
            verdict: Err(Withheld::Unsound(why)),
            item,
        };
        let object = match Object::read(item, &["name"]) {
            Ok(object) => object,
            Err(why) => return unsound("?", why.to_string()),
        };
        let Some(name) = object.get("name").and_then(string).filter(|n| n.len() <= NAME_BYTES)
        else {
            return unsound("?", "it has no name, or a long one".into());
        };
        if !covered(&name) {
            if Access::new(Kind::Tool, &name).canonical_target().is_none() {
                return unsound(&name, "its name has characters that no right can name".into());
            }
            let name = name.into_owned();
            return Seen { name, verdict: Err(Withheld::NotCovered), item };
        }
        if !self.known.contains_key(&*name) {
            let Some(less) = room.checked_sub(1) else {
                return unsound(&name, format!("the server has more than {TOOLS} tools"));
            };
            *room = less;
        }
        match canonical(item) {
            Ok(definition) => Seen { name: name.into_owned(), verdict: Ok(definition), item },
            Err(why) => unsound(&name, why.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryPins;

    fn page(tools: &mut Tools, pins: &MemoryPins, result: &str) -> Page {
        tools.page(result, |name| !name.starts_with("no_"), pins).unwrap()
    }

    #[test]
    fn tools_are_taken_out_and_the_rest_keeps_its_spelling() {
        let (mut tools, pins) = (Tools::default(), MemoryPins::default());
        let whole = r#"{ "tools": [ {"name":"a","n":1.0} , {"name":"b"} ], "ttlMs":1e3 }"#;
        let first = page(&mut tools, &pins, whole);
        assert_eq!(
            (first.text, first.cursor, first.pinned),
            (None, None, vec!["a".into(), "b".into()])
        );
        let mixed = r#"{ "tools": [ {"name":"no_x"}, {"n":1.0,"name":"a"} , {"name":"b","x":1}, {"name":"a","n":1.0}, {"Name":"b"}, 7, {"name":"c","s":{"k":1,"k":2}} ], "nextCursor":"\u0041" }"#;
        let page = page(&mut tools, &pins, mixed);
        assert_eq!(
            page.text.unwrap(),
            r#"{ "tools": [{"n":1.0,"name":"a"}], "nextCursor":"\u0041" }"#,
            "the same tool with its keys in another order is the same"
        );
        assert_eq!(page.cursor.as_deref(), Some(r#""\u0041""#));
        let why: Vec<&str> = page
            .withheld
            .iter()
            .map(|(_, why)| match why {
                Withheld::NotCovered => "right",
                Withheld::Changed => "changed",
                Withheld::Unapproved => "unapproved",
                Withheld::Unsound(_) => "unsound",
            })
            .collect();
        assert_eq!(why, ["right", "changed", "unsound", "unsound", "unsound", "unsound"]);
        assert_eq!(tools.standing("a"), Some(&Standing::Offered));
        assert_eq!(tools.standing("b"), Some(&Standing::Withheld(Withheld::Changed)));
        assert_eq!(tools.standing("no_x"), None);
        tools.forget();
        assert_eq!(tools.standing("a"), None);
    }

    #[test]
    fn what_is_no_list_of_tools_is_refused() {
        let (mut tools, pins) = (Tools::default(), MemoryPins::default());
        for bad in [
            "{}",
            "[]",
            r#"{"tools":{}}"#,
            r#"{"tools":[],"tools":[{"name":"x"}]}"#,
            r#"{"tools":[],"Tools":[{"name":"x"}]}"#,
        ] {
            assert!(tools.page(bad, |_| true, &pins).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_number_of_tools_is_bounded() {
        let (mut tools, pins) = (Tools::default(), MemoryPins::default());
        for n in 0..TOOLS {
            let text = format!(r#"{{"tools":[{{"name":"t{n}"}}]}}"#);
            assert!(page(&mut tools, &pins, &text).text.is_none());
        }
        let more = page(&mut tools, &pins, r#"{"tools":[{"name":"more"}]}"#);
        assert_eq!(more.text.as_deref(), Some(r#"{"tools":[]}"#));
    }
}
