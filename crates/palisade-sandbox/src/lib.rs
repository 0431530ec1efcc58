//! Where a plugin may run: Backend, Prepared, Instance, Lane, LaunchSpec and the resolver.
