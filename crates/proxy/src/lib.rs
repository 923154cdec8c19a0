//! The entrypoint: listeners, routes, the data path, hold and drain, stats.
