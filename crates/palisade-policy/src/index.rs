//! Finding the pattern that covers a target, without asking each pattern.
//!
//! One index a kind. Targets come in canonical form ([`palisade_model::Access::canonical_target`]).
//! Exact scopes lie in a hash map. Open ones (`/srv/**`, `*.example.org`, `app_*`) lie sorted, with those
//! left out that lie within another: then the only one that can cover a target is the last that does not
//! sort after it. Subjects lie in a tree of tokens.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    str::Split,
};

use palisade_model::{
    Capability, Kind,
    capability::{HostPattern, PortPattern, Scope},
};

/// Patterns of any kinds; each carries the number it was added with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index(BTreeMap<Kind, OneKind>);

#[derive(Clone, Debug, Default)]
struct OneKind {
    /// Exact paths or names.
    exact: HashMap<Box<str>, usize>,
    /// Folders, or prefixes of names.
    open: Prefixes,
    any_port: Hosts,
    ports: BTreeMap<u16, Hosts>,
    subjects: Subjects,
}

impl Index {
    /// Compiles `patterns`; their numbers are their positions.
    pub(crate) fn new<'c>(patterns: impl Iterator<Item = &'c Capability>) -> Self {
        let mut index = Self::default();
        for (number, pattern) in patterns.enumerate() {
            index.0.entry(pattern.kind()).or_default().add(pattern, number);
        }
        for kind in index.0.values_mut() {
            kind.open.finish();
            kind.any_port.below.finish();
            kind.ports.values_mut().for_each(|hosts| hosts.below.finish());
        }
        index
    }

    /// The number of a pattern of `kind` that covers the canonical `target`.
    pub(crate) fn find(&self, kind: Kind, target: &str) -> Option<usize> {
        use palisade_model::capability::ScopeForm;
        let of_kind = self.0.get(&kind)?;
        match kind.scope_form() {
            ScopeForm::Path | ScopeForm::Name => {
                of_kind.exact.get(target).copied().or_else(|| of_kind.open.find(target))
            }
            ScopeForm::Authority => {
                let (host, port) = target.rsplit_once(':')?;
                let at_port = port.parse().ok().and_then(|p: u16| of_kind.ports.get(&p));
                at_port.and_then(|h| h.find(host)).or_else(|| of_kind.any_port.find(host))
            }
            ScopeForm::Subject => of_kind.subjects.find(target.split('.')),
        }
    }
}

impl OneKind {
    fn add(&mut self, pattern: &Capability, number: usize) {
        match pattern.scope() {
            Scope::Path(path) if path.covers_below() => {
                self.open.add(Order::Components, path.path(), number);
            }
            Scope::Path(path) => {
                self.exact.insert(path.path().into(), number);
            }
            Scope::Name(name) => match name.exact() {
                Some(name) => {
                    self.exact.insert(name.into(), number);
                }
                None => {
                    let text = name.to_string();
                    self.open.add(Order::Bytes, text.strip_suffix('*').unwrap_or(&text), number);
                }
            },
            Scope::Authority(authority) => {
                let hosts = match authority.port() {
                    PortPattern::Any => &mut self.any_port,
                    PortPattern::Exact(port) => self.ports.entry(port).or_default(),
                };
                match authority.host() {
                    HostPattern::Any => hosts.any = Some(number),
                    HostPattern::Exact(host) => {
                        hosts.exact.insert(host.as_str().into(), number);
                    }
                    HostPattern::Below(suffix) => hosts.below.add(Order::Labels, suffix, number),
                }
            }
            Scope::Subject(subject) => self.subjects.add(subject.as_str().split('.'), number),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Hosts {
    any: Option<usize>,
    exact: HashMap<Box<str>, usize>,
    below: Prefixes,
}

impl Hosts {
    fn find(&self, host: &str) -> Option<usize> {
        self.any.or_else(|| self.exact.get(host).copied()).or_else(|| self.below.find(host))
    }
}

/// How texts are read as sequences, so that "lies within" is "begins with".
#[derive(Clone, Copy, Debug, Default)]
enum Order {
    /// Bytes from the front; a prefix covers itself and what begins with it.
    #[default]
    Bytes,
    /// Path components from the front; a folder covers itself and what is below.
    Components,
    /// Labels from the end; a suffix covers only names with more labels.
    Labels,
}

/// The rank of a byte where `separator` sorts before everything else, so that what lies below `a` sorts
/// directly after `a` and before `a-`.
fn rank(byte: u8, separator: u8) -> u16 {
    if byte == separator { 0 } else { u16::from(byte) + 1 }
}

/// A folder as the text that all below it begins with, less the slash: nothing for `/`.
fn folder(path: &str) -> &str {
    if path == "/" { "" } else { path }
}

impl Order {
    fn compare(self, a: &str, b: &str) -> Ordering {
        match self {
            Self::Bytes => a.cmp(b),
            Self::Components => {
                let (a, b) = (folder(a).bytes(), folder(b).bytes());
                a.map(|b| rank(b, b'/')).cmp(b.map(|b| rank(b, b'/')))
            }
            Self::Labels => {
                a.bytes().rev().map(|b| rank(b, b'.')).cmp(b.bytes().rev().map(|b| rank(b, b'.')))
            }
        }
    }

    /// Whether the open pattern `prefix` covers `target`.
    fn covers(self, prefix: &str, target: &str) -> bool {
        match self {
            Self::Bytes => target.starts_with(prefix),
            Self::Components => folder(target)
                .strip_prefix(folder(prefix))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Labels => target.strip_suffix(prefix).is_some_and(|front| front.ends_with('.')),
        }
    }
}

/// Open patterns of one order, sorted, none within another.
#[derive(Clone, Debug, Default)]
struct Prefixes {
    order: Order,
    sorted: Vec<(Box<str>, usize)>,
}

impl Prefixes {
    fn add(&mut self, order: Order, prefix: &str, number: usize) {
        self.order = order;
        self.sorted.push((prefix.into(), number));
    }

    fn finish(&mut self) {
        let order = self.order;
        self.sorted.sort_by(|(a, _), (b, _)| order.compare(a, b));
        // What lies within a pattern sorts directly after it, so the last one kept is the one to ask.
        self.sorted.dedup_by(|(inner, _), (outer, _)| {
            order.compare(inner, outer).is_eq() || order.covers(outer, inner)
        });
    }

    /// If a pattern covers `target`, everything that sorts between them lies within it, and of that
    /// nothing was kept: so it is the last that does not sort after the target.
    fn find(&self, target: &str) -> Option<usize> {
        let after = self.sorted.partition_point(|(p, _)| self.order.compare(p, target).is_le());
        let (prefix, number) = self.sorted.get(after.checked_sub(1)?)?;
        self.order.covers(prefix, target).then_some(*number)
    }
}

/// Subject patterns as a tree of tokens. At most 16 deep, since subjects are; a search visits each node
/// at most once.
#[derive(Clone, Debug, Default)]
struct Subjects {
    tokens: HashMap<Box<str>, Subjects>,
    any: Option<Box<Subjects>>,
    /// A pattern that ends in `>` here.
    rest: Option<usize>,
    /// A pattern that ends here.
    here: Option<usize>,
}

impl Subjects {
    fn add(&mut self, mut pattern: Split<'_, char>, number: usize) {
        match pattern.next() {
            None => self.here = Some(number),
            Some(">") => self.rest = Some(number),
            Some("*") => self.any.get_or_insert_default().add(pattern, number),
            Some(token) => self.tokens.entry(token.into()).or_default().add(pattern, number),
        }
    }

    fn find(&self, mut subject: Split<'_, char>) -> Option<usize> {
        let Some(token) = subject.next() else { return self.here };
        self.rest
            .or_else(|| self.tokens.get(token)?.find(subject.clone()))
            .or_else(|| self.any.as_ref()?.find(subject))
    }
}
