//! Walking over an interpreter's own options, up to what it is to run.

/// The options of a program that come before its first operand.
pub(crate) struct Options<'a> {
    /// Options with a value that may stand in the next word.
    pub(crate) valued: &'a [&'a str],
    /// Options after which the rest belongs to what they start (`-m MODULE`, `-c CODE`), as the last.
    pub(crate) ending: &'a [&'a str],
}

/// One option as it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
}

/// Options, how many words they take, and the operands.
pub(crate) struct Walked<'a> {
    pub(crate) options: Vec<Found>,
    /// The words of the options, as they were.
    pub(crate) words: &'a [String],
    /// What comes after them.
    pub(crate) rest: &'a [String],
    /// The option of [`Options::ending`] that ended them, with its value.
    pub(crate) ended_by: Option<Found>,
}

impl Options<'_> {
    /// Splits `args`. A lone `-` is an operand; `--` ends the options.
    pub(crate) fn walk<'a>(&self, args: &'a [String]) -> Walked<'a> {
        let mut options = Vec::new();
        let mut at = 0;
        while let Some(word) = args.get(at) {
            if word == "--" || word == "-" || !word.starts_with('-') {
                break;
            }
            let (name, attached) = self.split(word);
            let takes =
                self.valued.contains(&name.as_str()) || self.ending.contains(&name.as_str());
            let value = match attached {
                Some(value) => Some(value),
                None if takes => {
                    at += 1;
                    args.get(at).cloned()
                }
                None => None,
            };
            at += 1;
            let found = Found { name, value };
            if self.ending.contains(&found.name.as_str()) {
                let at = at.min(args.len());
                let (words, rest) = args.split_at(at);
                return Walked { options, words, rest, ended_by: Some(found) };
            }
            options.push(found);
        }
        let (words, mut rest) = args.split_at(at.min(args.len()));
        if rest.first().is_some_and(|word| word == "--") {
            rest = rest.get(1..).unwrap_or_default();
        }
        Walked { options, words, rest, ended_by: None }
    }

    /// `--name=value`, `-mVALUE`, `-Bum VALUE` (short flags before a short option with a value), or just a
    /// name.
    fn split(&self, word: &str) -> (String, Option<String>) {
        if word.starts_with("--") {
            return match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word.to_owned(), None),
            };
        }
        if self.valued.contains(&word) || self.ending.contains(&word) {
            return (word.to_owned(), None);
        }
        for (at, letter) in word.char_indices().skip(1) {
            let short = format!("-{letter}");
            if self.valued.contains(&short.as_str()) || self.ending.contains(&short.as_str()) {
                let value = word.get(at + letter.len_utf8()..).filter(|v| !v.is_empty());
                return (short, value.map(str::to_owned));
            }
        }
        (word.to_owned(), None)
    }
}
