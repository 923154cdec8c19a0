//! The daemon beside a PostgreSQL server: it observes, lets `pgherd_ha` decide, and executes.

pub mod api;
mod children;
pub mod config;
mod daemon;
#[doc(hidden)]
pub mod fuzz;
pub mod guard;
pub mod log;
pub mod postgres;
pub mod privileges;
mod proc_stat;
pub mod python_text;
pub mod survivors;
pub mod user_command;
mod watchdog;

pub use daemon::run;
