//! What a person is told while a relay runs.

/// Where the relay says what a person should know. The protocol's own messages do not come here.
pub trait Report: Send + Sync {
    /// A line that the server wrote to its standard output and that is no message: a banner, something
    /// left over from debugging. Neither escaped nor held to the server's log rate.
    fn stray(&self, line: &str);

    /// Something that was withheld, refused or went wrong, and what to do about it. Escaped.
    fn notice(&self, text: &str);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Report for Silent {
    fn stray(&self, _: &str) {}
    fn notice(&self, _: &str) {}
}
