//! Decision graph to instructions, written from the last instruction to the first.
//!
//! Classic BPF jumps forward only and a conditional jump reaches at most 255 instructions. Writing
//! backwards means that every target is already in place when a jump to it is written, so the
//! distance is known; where it is too far, a nearer copy of the answer or a long `ja` is put in.

use std::collections::HashMap;

use super::graph::{Graph, Jump, Kind, Node, Test};
use crate::action::Action;
use crate::program::{Instruction, code};

/// The farthest a conditional jump reaches.
const REACH: usize = 255;

/// What the accumulator holds: a word of `seccomp_data`, masked.
type Held = (u8, u32);

/// The places a node can be entered at, counted from the end of the program.
#[derive(Debug, Clone, Copy, Default)]
struct Entries {
    /// Nothing is assumed about the accumulator.
    any: Option<usize>,
    /// The accumulator holds the whole word.
    loaded: Option<usize>,
    /// The accumulator holds the word already masked.
    masked: Option<usize>,
}

/// The instructions for `root`.
pub(super) fn emit(graph: &Graph, root: Node) -> Vec<Instruction> {
    let order = postorder(graph, root);
    let mut emitter = Emitter {
        graph,
        needs: needs(graph, &order, root),
        reversed: Vec::new(),
        entries: HashMap::new(),
        copies: HashMap::new(),
    };
    for node in order {
        emitter.node(node);
    }
    emitter.reversed.reverse();
    emitter.reversed
}

/// Every node after its successors. The "no" side comes last, so that it stands directly behind
/// its test and falling through is the common way.
fn postorder(graph: &Graph, root: Node) -> Vec<Node> {
    let mut order = Vec::new();
    let mut state: HashMap<Node, bool> = HashMap::new();
    let mut stack = vec![root];
    while let Some(&node) = stack.last() {
        match state.get(&node) {
            Some(true) => {
                stack.pop();
            }
            Some(false) => {
                state.insert(node, true);
                order.push(node);
                stack.pop();
            }
            None => {
                state.insert(node, false);
                if let Some(Kind::Branch { yes, no, .. }) = graph.kind(node) {
                    for next in [no, yes] {
                        if !state.contains_key(&next) {
                            stack.push(next);
                        }
                    }
                }
            }
        }
    }
    order
}

/// In which states of the accumulator each node is entered.
fn needs(graph: &Graph, order: &[Node], root: Node) -> HashMap<Node, Vec<Option<Held>>> {
    let mut needs: HashMap<Node, Vec<Option<Held>>> = HashMap::new();
    needs.entry(root).or_default().push(None);
    for &node in order {
        if let Some(Kind::Branch { test, yes, no }) = graph.kind(node) {
            for next in [yes, no] {
                needs.entry(next).or_default().push(Some((test.word, test.mask)));
            }
        }
    }
    needs
}

struct Emitter<'a> {
    graph: &'a Graph,
    needs: HashMap<Node, Vec<Option<Held>>>,
    /// The program so far, last instruction first.
    reversed: Vec<Instruction>,
    entries: HashMap<Node, Entries>,
    /// The nearest jump pad that leads to a place, by that place.
    copies: HashMap<usize, usize>,
}

impl Emitter<'_> {
    fn node(&mut self, node: Node) {
        match self.graph.kind(node) {
            Some(Kind::Answer(action)) => self.answer(node, action),
            Some(Kind::Branch { test, yes, no }) => self.branch(node, test, yes, no),
            None => {}
        }
    }

    fn answer(&mut self, node: Node, action: Action) {
        let place = self.push(Instruction::plain(code::RET_K, action.to_return()));
        let everywhere = Some(place);
        self.entries
            .insert(node, Entries { any: everywhere, loaded: everywhere, masked: everywhere });
    }

    fn branch(&mut self, node: Node, test: Test, yes: Node, no: Node) {
        let holding = (test.word, test.mask);
        let (Some(yes), Some(no)) = (self.entry(yes, holding), self.entry(no, holding)) else {
            return;
        };
        // A pad for one side pushes the other one instruction further away, so both are made
        // before either distance is taken, with one instruction to spare.
        let yes = self.within_reach(yes);
        let no = self.within_reach(no);
        let place = self.reversed.len();
        let jump = Instruction {
            code: match test.jump {
                Jump::Eq => code::JEQ_K,
                Jump::Gt => code::JGT_K,
                Jump::Ge => code::JGE_K,
                Jump::Set => code::JSET_K,
            },
            jt: offset(place, yes),
            jf: offset(place, no),
            k: test.k,
        };
        let mut entries = Entries { masked: Some(self.push(jump)), ..Entries::default() };
        let needs = self.needs.get(&node).cloned().unwrap_or_default();
        let whole = (test.word, u32::MAX);
        if test.mask == u32::MAX {
            entries.loaded = entries.masked;
        } else if needs.iter().any(|&held| held != Some(holding)) {
            entries.loaded = Some(self.push(Instruction::plain(code::AND_K, test.mask)));
        }
        if needs.iter().any(|&held| held != Some(holding) && held != Some(whole)) {
            let load = Instruction::plain(code::LD_W_ABS, u32::from(test.word));
            entries.any = Some(self.push(load));
        }
        self.entries.insert(node, entries);
    }

    /// Where to enter `node` when the accumulator holds `held`.
    fn entry(&self, node: Node, held: Held) -> Option<usize> {
        let entries = self.entries.get(&node)?;
        match self.graph.kind(node)? {
            Kind::Answer(_) => entries.any,
            Kind::Branch { test, .. } if held == (test.word, test.mask) => entries.masked,
            Kind::Branch { test, .. } if held == (test.word, u32::MAX) => entries.loaded,
            Kind::Branch { .. } => entries.any,
        }
    }

    /// A place that leads to `target` and that the next conditional jump can reach even when one
    /// more instruction is put in between.
    fn within_reach(&mut self, target: usize) -> usize {
        let limit = REACH - 1;
        let distance = |emitter: &Self, place: usize| emitter.reversed.len() - place - 1;
        if distance(self, target) <= limit {
            return target;
        }
        if let Some(&pad) = self.copies.get(&target)
            && distance(self, pad) <= limit
        {
            return pad;
        }
        // Everything written so far is entered only by a jump, so a pad may stand here without
        // anything falling into it. A copy of an answer is as short as a jump to it.
        let pad = match self.reversed.get(target) {
            Some(answer) if answer.code == code::RET_K => *answer,
            _ => Instruction::plain(code::JA, u32::try_from(distance(self, target)).unwrap_or(0)),
        };
        let place = self.push(pad);
        self.copies.insert(target, place);
        place
    }

    fn push(&mut self, instruction: Instruction) -> usize {
        self.reversed.push(instruction);
        self.reversed.len() - 1
    }
}

/// Instructions between a jump at `place` and its target, both counted from the end.
fn offset(place: usize, target: usize) -> u8 {
    // `within_reach` keeps this at 255 or less; the checker would refuse a wrong program and the
    // differential tests would see it.
    u8::try_from(place - target - 1).unwrap_or(u8::MAX)
}
