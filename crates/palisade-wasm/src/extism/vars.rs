//! Variables of one instance: what a plugin keeps between calls.

use std::collections::BTreeMap;

/// Most bytes of all names and values, with [`EACH`] for every variable.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// What a variable takes beside its name and value, as Extism counts it.
const EACH: usize = 48;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Vars {
    values: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

fn size(name: &str, value: &[u8]) -> usize {
    name.len() + value.len() + EACH
}

impl Vars {
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.values.get(name).map(Vec::as_slice)
    }

    /// Sets a variable. `false`: there would be more than [`MAX_BYTES`], and nothing changed.
    pub(crate) fn set(&mut self, name: String, value: Vec<u8>) -> bool {
        let before = self.get(&name).map_or(0, |old| size(&name, old));
        let after = self.bytes - before + size(&name, &value);
        if after > MAX_BYTES {
            return false;
        }
        self.bytes = after;
        self.values.insert(name, value);
        true
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(old) = self.values.remove(name) {
            self.bytes -= size(name, &old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_kept_replaced_and_removed() {
        let mut vars = Vars::default();
        assert_eq!(vars.get("a"), None);
        assert!(vars.set("a".into(), b"1".to_vec()));
        assert!(vars.set("a".into(), b"22".to_vec()));
        assert_eq!(vars.get("a"), Some(&b"22"[..]));
        vars.remove("a");
        vars.remove("a");
        assert_eq!((vars.get("a"), vars.bytes), (None, 0));
    }

    #[test]
    fn all_variables_together_are_bounded() {
        let mut vars = Vars::default();
        assert!(vars.set("a".into(), vec![0; MAX_BYTES - EACH - 1]));
        assert!(!vars.set("b".into(), Vec::new()), "names and entries count");
        assert!(!vars.set("a".into(), vec![0; MAX_BYTES - EACH]));
        assert_eq!(vars.get("a").map(<[u8]>::len), Some(MAX_BYTES - EACH - 1), "nothing changed");
        assert!(vars.set("a".into(), vec![0; 10]), "a smaller value frees what the old one took");
        assert!(vars.set("b".into(), vec![0; 10]));
    }
}
