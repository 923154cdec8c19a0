//! See `crate::fuzz`.

use std::hint::black_box;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::options::check_local;
use super::tree::Tree;
use super::values::{Unit, integer};
use super::{Company, Config, Dynamic, Problems, understood, yaml};

const COMPANY: Company = Company { all_pgherd: true, built_in_store: false };

pub fn file(bytes: &[u8]) {
    if let Ok(document) = yaml::read("node.yml", bytes) {
        let checked = check_local(&document.value, &document.places);
        black_box(Config::read(&Tree(&checked.value), &mut Problems::default()));
    }
}

pub fn dynamic(stored: &Map<String, Value>) {
    static NODE: OnceLock<Config> = OnceLock::new();
    let node = NODE.get_or_init(|| {
        let document = yaml::read("node.yml", include_bytes!("testdata/postgres1.yml")).expect("the lab's file");
        let checked = check_local(&document.value, &document.places);
        Config::read(&Tree(&checked.value), &mut Problems::default()).expect("it is whole")
    });
    let (known, _) = understood(stored, &Map::new());
    black_box(Dynamic::read(&known, node, COMPANY));
    black_box(Dynamic::read(stored, node, COMPANY));
}

pub fn scalar(text: &str) {
    black_box(super::scalar::resolve(text));
    for unit in [Unit::None, Unit::Seconds, Unit::Bytes] {
        black_box(integer(&Value::from(text), unit));
    }
    black_box((text.parse::<super::Address>().ok(), text.parse::<super::Listen>().ok()));
}
