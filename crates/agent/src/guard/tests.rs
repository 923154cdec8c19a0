//! The guard's loop on processes that only look like a server.
