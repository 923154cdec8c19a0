//! See `crate::fuzz`.

use std::hint::black_box;

use super::acceptance::{Values, findings};
use super::postmaster::PidFile;
use super::{access, archive, base_backup, control_data, installation, lineage, outlying, rewind};

pub fn control_data(text: &str) {
    black_box(control_data::parse(text).ok());
}

pub fn timeline_history(text: &str) {
    black_box(lineage::parse_history(text));
}

pub fn postmaster_pid(text: &str) {
    black_box(PidFile::parse(text));
}

pub fn access_rules(text: &str) {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    black_box(access::narrowed(&lines, &["postgres", "a b"]));
}

pub fn output(text: &str) {
    black_box((base_backup::parse_progress(text), rewind::checkpoint_length(text), installation::parse_version(text)));
    black_box((archive::substituted(text, "000000010000000000000001"), outlying::split_mapping(text)));
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    black_box(findings(&lines, &["wal_level"], &Values::new()));
}
