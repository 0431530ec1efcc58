//! Behaviour of scopes, checked against brute force.
