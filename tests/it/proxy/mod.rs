//! The entrypoint in front of real servers, with agents that the tests speak for.

mod lab;
mod routes;
mod streams;
