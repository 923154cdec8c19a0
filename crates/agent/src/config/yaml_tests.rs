use proptest::prelude::*;
use serde_json::json;

use super::*;

fn value(text: &str) -> Value {
    read("f.yml", text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}")).value
}

fn error(text: &str) -> String {
    read("f.yml", text.as_bytes()).expect_err("this text must be refused").to_string()
}

#[test]
fn documents() {
    let cases = [
        ("", json!(null)),
        ("# nothing\n", json!(null)),
        ("---\na: 1\n...\n", json!({"a": 1})),
        ("a: off\nb: 'off'\nc: \"0755\"\nd: 0755\n", json!({"a": false, "b": "off", "c": "0755", "d": 493})),
        ("a: |\n  on\n", json!({"a": "on\n"})),
        ("a: !!str on\nb: !!int 010\n", json!({"a": "on", "b": 8})),
        ("on: 1\n2: x\n~: y\n", json!({"true": 1, "2": "x", "null": "y"})),
        ("a: [1, x, {b: no}]\n", json!({"a": [1, "x", {"b": false}]})),
        ("a: &x {k: 1}\nb: *x\n", json!({"a": {"k": 1}, "b": {"k": 1}})),
        (
            "a: &x {k: 1, l: 1}\nb: &y {l: 2}\nc: {<<: [*y, *x], m: 3, k: 9}\n",
            json!({"a": {"k": 1, "l": 1}, "b": {"l": 2}, "c": {"l": 2, "k": 9, "m": 3}}),
        ),
        ("a: '<<'\n\"<<\": 1\n", json!({"a": "<<", "<<": 1})),
        ("a:\n- b: 1\n  c: 2\n- d\n", json!({"a": [{"b": 1, "c": 2}, "d"]})),
    ];
    for (text, expected) in cases {
        assert_eq!(value(text), expected, "{text:?}");
    }
}

#[test]
fn order_is_kept() {
    let value = value("z: 1\na: 2\nm: 3\n");
    let keys: Vec<_> = value.as_object().expect("a mapping").keys().cloned().collect();
    assert_eq!(keys, ["z", "a", "m"]);
}

#[test]
fn errors_name_file_line_and_key() {
    let cases = [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "f.yml:4:3: b.c: this key is written twice; remove one"),
        ("a: 1\n---\nb: 2\n", "f.yml:3:1: a second document begins here; a configuration is one"),
        ("a: !env HOME\n", "f.yml:1:9: the tag `!env` has no meaning in a configuration"),
        ("? [a, b]\n: 1\n", "f.yml:1:3: a key must be a single word or text"),
        ("a: {<<: 1}\n", "f.yml:1:9: `<<` merges mappings only"),
        ("a: &x [*x]\n", "f.yml:1:8: this alias stands inside the value it names"),
    ];
    for (text, expected) in cases {
        assert_eq!(error(text), expected, "{text:?}");
    }
    // A plain scalar may not begin with a percent sign, in PyYAML neither.
    assert!(error("a: %(asctime)s\n").starts_with("f.yml:1:4: this is not YAML"), "{}", error("a: %(asctime)s\n"));
    for (text, place) in [("a: [1\n", "f.yml:1:4"), ("a: 1\n b: 2\n", "f.yml:2:"), ("a: \"x\n", "f.yml:")] {
        assert!(error(text).starts_with(place), "{text:?}: {}", error(text));
    }
    let not_text = read("f.yml", b"a: 1\nb: \xff\n").expect_err("not UTF-8").to_string();
    assert_eq!(not_text, "f.yml: line 2 is not UTF-8 text: save the file as UTF-8");
}

#[test]
fn places_of_keys_and_items() {
    let document = read("f.yml", b"a: 1\nb:\n  c: [x,\n    y]\n").expect("valid");
    let place = |path: &[&str]| {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        document.places.find(&path).map(|place| (place.line, place.column))
    };
    assert_eq!(place(&["a"]), Some((1, 1)));
    assert_eq!(place(&["b", "c"]), Some((3, 3)));
    assert_eq!(place(&["b", "c", "1"]), Some((4, 5)));
    assert_eq!(place(&["b", "c", "7", "x"]), Some((3, 3)), "the nearest key above");
    assert_eq!(place(&["nowhere"]), None);
}

#[test]
fn size_depth_and_aliases_are_bounded() {
    let deep = format!("a: {}{}", "[".repeat(60), "]".repeat(60));
    assert!(error(&deep).contains("nested deeper"), "{}", error(&deep));
    // Each line is ten times the line before it.
    let mut laughs = String::from("l0: &l0 [x]\n");
    for level in 1..9 {
        let previous = vec![format!("*l{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("l{level}: &l{level} [{previous}]\n"));
    }
    assert!(error(&laughs).contains("aliases count each time"), "{}", error(&laughs));
    let mut chain = String::from("l0: &l0 [x]\n");
    for level in 1..60 {
        chain.push_str(&format!("l{level}: &l{level} [*l{}]\n", level - 1));
    }
    assert!(error(&chain).contains("nested deeper"), "{}", error(&chain));
    let large = vec![b'#'; MAX_BYTES + 1];
    assert!(read("f.yml", &large).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read("f.yml", &bytes);
    }

    #[test]
    fn arbitrary_yaml_like_text_never_panics(text in "([-a-c:?&*!|>'\"%@`{}\\[\\],#<~0-9 \t\n]|<<: |: |- |\n  ){0,120}") {
        let _ = read("f.yml", text.as_bytes());
    }
}
