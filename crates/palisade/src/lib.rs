//! Run other people's plugins without trusting them.
