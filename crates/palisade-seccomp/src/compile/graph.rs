//! The decision graph: answers and two-way tests, each distinct one stored once.

use std::collections::HashMap;

use crate::action::Action;

/// A node, by its place in the graph. Successors always have smaller numbers than the node itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Node(usize);

/// The comparisons classic BPF has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Jump {
    Eq,
    Gt,
    Ge,
    Set,
}

/// `seccomp_data[word] & mask`, compared with `k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Test {
    /// Byte offset in `struct seccomp_data`, a multiple of 4 below 64.
    pub(super) word: u8,
    /// All ones where no masking is needed.
    pub(super) mask: u32,
    pub(super) jump: Jump,
    pub(super) k: u32,
}

impl Test {
    pub(super) const fn new(word: u8, jump: Jump, k: u32) -> Test {
        Test { word, mask: u32::MAX, jump, k }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Answer(Action),
    Branch { test: Test, yes: Node, no: Node },
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: Vec<Kind>,
    known: HashMap<Kind, Node>,
}

impl Graph {
    pub(super) fn answer(&mut self, action: Action) -> Node {
        self.add(Kind::Answer(action))
    }

    /// A test; one whose two sides are the same is no test.
    pub(super) fn branch(&mut self, test: Test, yes: Node, no: Node) -> Node {
        if yes == no {
            return yes;
        }
        self.add(Kind::Branch { test, yes, no })
    }

    pub(super) fn kind(&self, node: Node) -> Option<Kind> {
        self.nodes.get(node.0).copied()
    }

    fn add(&mut self, kind: Kind) -> Node {
        let nodes = &mut self.nodes;
        *self.known.entry(kind).or_insert_with(|| {
            nodes.push(kind);
            Node(nodes.len() - 1)
        })
    }
}
