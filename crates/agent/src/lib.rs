//! The daemon beside a PostgreSQL server: it observes, lets `pgherd_ha` decide, and executes.

pub mod api;
pub mod config;
pub mod guard;
pub mod postgres;
pub mod privileges;
