//! The search for the call number: a balanced tree of `>=` tests whose leaves are short runs of
//! `==` tests. A lone number between two ranges of the same outcome costs one instruction in such
//! a run and two in the tree, so runs are used wherever they are shorter.

use super::graph::{Graph, Jump, Node, Test};

/// The numbers from `first` up to the next range's `first` have the same outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) outcome: Node,
}

/// The most `==` tests in one run. Longer runs save nothing more but make late numbers slow.
const LONGEST_RUN: usize = 6;

/// Consecutive ranges answered by a run of `==` tests with one outcome for all other numbers.
struct Leaf {
    first: u32,
    exceptions: Vec<(u32, Node)>,
    otherwise: Node,
}

/// Builds the search over `ranges`, which start at 0, ascend and cover every number.
pub(super) fn tree(graph: &mut Graph, ranges: &[Range], word: u8) -> Node {
    let leaves: Vec<(u32, Node)> = partition(ranges)
        .into_iter()
        .map(|leaf| {
            let mut node = leaf.otherwise;
            for &(number, outcome) in leaf.exceptions.iter().rev() {
                node = graph.branch(Test::new(word, Jump::Eq, number), outcome, node);
            }
            (leaf.first, node)
        })
        .collect();
    balanced(graph, &leaves, word)
}

fn balanced(graph: &mut Graph, leaves: &[(u32, Node)], word: u8) -> Node {
    match leaves {
        // Cannot happen: ranges cover every number, so there is at least one.
        [] => graph.answer(crate::action::Action::KillProcess),
        [(_, node)] => *node,
        _ => {
            let (below, above) = leaves.split_at(leaves.len() / 2);
            let first = above.first().map_or(u32::MAX, |leaf| leaf.0);
            let no = balanced(graph, below, word);
            let yes = balanced(graph, above, word);
            graph.branch(Test::new(word, Jump::Ge, first), yes, no)
        }
    }
}

/// The cheapest cut of the number line into leaves: each costs its tests, each cut one more.
fn partition(ranges: &[Range]) -> Vec<Leaf> {
    // best[j] is the cheapest cost of the first j ranges and where their last leaf starts.
    let mut best: Vec<(usize, usize)> = vec![(0, 0)];
    for end in 1..=ranges.len() {
        let mut choice = (usize::MAX, end - 1);
        // A leaf holds at most one range of the common outcome between two exceptions.
        for start in (end.saturating_sub(2 * LONGEST_RUN + 1)..end).rev() {
            let Some(leaf) = leaf(ranges, start, end) else { continue };
            let before = best.get(start).map_or(usize::MAX, |&(cost, _)| cost);
            let cost = before.saturating_add(leaf.exceptions.len()).saturating_add(1);
            if cost < choice.0 {
                choice = (cost, start);
            }
        }
        best.push(choice);
    }
    let mut leaves = Vec::new();
    let mut end = ranges.len();
    while end > 0 {
        let start = best.get(end).map_or(0, |&(_, start)| start).min(end - 1);
        leaves.extend(leaf(ranges, start, end));
        end = start;
    }
    leaves.reverse();
    leaves
}

/// The ranges `start..end` as one leaf, if all but one outcome are lone numbers.
fn leaf(ranges: &[Range], start: usize, end: usize) -> Option<Leaf> {
    let part = ranges.get(start..end)?;
    let lone = |at: usize| {
        let range = ranges.get(at)?;
        let next = ranges.get(at + 1)?;
        (next.first == range.first + 1).then_some((range.first, range.outcome))
    };
    // The common outcome is that of the first range that is no lone number; if all are, the last.
    let wide = (start..end).find(|&at| lone(at).is_none()).unwrap_or(end - 1);
    let otherwise = ranges.get(wide)?.outcome;
    let mut exceptions = Vec::new();
    for at in start..end {
        if ranges.get(at)?.outcome != otherwise {
            exceptions.push(lone(at)?);
        }
    }
    (exceptions.len() <= LONGEST_RUN).then_some(Leaf {
        first: part.first()?.first,
        exceptions,
        otherwise,
    })
}
