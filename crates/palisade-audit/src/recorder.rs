//! The seam between the gate and whatever keeps the record.

use palisade_model::ErrorCode;

use crate::{Act, BoxFuture, Intent, Outcome, RecordError, Tally};

/// Keeps the record. Implementations never block the caller but in [`Recorder::intent`] of the
/// fail-closed class and in [`Recorder::flush`].
pub trait Recorder: Send + Sync {
    /// Records that `act` is about to happen.
    ///
    /// For a kind of [`crate::Class::FailClosed`] the future resolves when the record is as safe as
    /// this recorder can make it. Dropping the future before that leaves an intent that is followed by
    /// the outcome "cancelled". For the bulk class it is ready at once.
    ///
    /// # Errors
    /// [`RecordError`] when a fail-closed act could not be recorded: the act must not happen. The bulk
    /// class has no errors; what is dropped is counted in the record itself.
    fn intent(&self, act: Act) -> BoxFuture<'_, Result<Intent, RecordError>>;

    /// Records what came of an intent. `detail` is bounded and escaped.
    fn outcome(&self, intent: Intent, outcome: Outcome, detail: Option<&str>);

    /// Records a fact without duration: a refusal, an exit.
    fn note(&self, act: Act, code: Option<ErrorCode>);

    /// Waits until everything recorded so far is as safe as this recorder can make it.
    ///
    /// # Errors
    /// [`RecordError`] when that failed.
    fn flush(&self) -> BoxFuture<'_, Result<(), RecordError>>;

    /// Whether records outlive the process.
    fn is_durable(&self) -> bool;

    /// A count of acts that are all like `act`, whose payload says nothing here. `None`, the default:
    /// this recorder records each of them.
    fn tally(&self, act: &Act) -> Option<Box<dyn Tally>> {
        let _ = act;
        None
    }
}
