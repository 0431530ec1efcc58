//! What is granted: pure decisions over requested, granted and the operator's rules. No I/O.
