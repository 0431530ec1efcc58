//! The wire between Palisade and a native plugin: framing, messages, negotiation, Peer.
