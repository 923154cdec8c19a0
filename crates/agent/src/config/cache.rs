//! `patroni.dynamic.json`: the last dynamic configuration, kept in the data directory so that a cluster whose store was
//! emptied comes back with its settings.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};
use serde_json::{Map, Value};

const NAME: &str = "patroni.dynamic.json";
/// A dynamic configuration is a znode, which ZooKeeper bounds to one megabyte.
const MAX_BYTES: u64 = 1 << 20;

/// The kept configuration; `None` if there is none.
///
/// # Errors
/// The file cannot be read, is too large, or does not hold a JSON object.
pub fn read_cache(data_dir: &Path) -> io::Result<Option<Map<String, Value>>> {
    let file = match fs::File::open(data_dir.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    serde_json::from_str(&text).map(Some).map_err(io::Error::from)
}

/// Replaces the file as one step. Readable by the group if the data directory is.
pub fn write_cache(data_dir: &Path, config: &Map<String, Value>) -> io::Result<()> {
    let shared = fs::metadata(data_dir)?.mode() & 0o040 != 0;
    let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(if shared { 0o640 } else { 0o600 }))?;
    file.write_all(&python_json(config)?)?;
    file.as_file().sync_all()?;
    file.persist(data_dir.join(NAME)).map_err(|error| error.error)?;
    Ok(())
}

/// The form in which Patroni writes the file: `{"a": 1, "b": 2}`, all of it ASCII.
fn python_json(config: &Map<String, Value>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    config.serialize(&mut Serializer::with_formatter(&mut bytes, Python)).map_err(io::Error::from)?;
    Ok(bytes)
}

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for character in fragment.chars() {
            if character.is_ascii() && character != '\u{7f}' {
                writer.write_all(&[character as u8])?;
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(read_cache(directory.path()).expect("no file is no error"), None);
        let config = json!({"ttl": 30, "slots": {"ä😀\n\"": [1, null]}, "empty": {}});
        let config = config.as_object().expect("a mapping");
        for directory_mode in [0o700, 0o750] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(directory_mode)).expect("own directory");
            write_cache(directory.path(), config).expect("written");
            let path = directory.path().join(NAME);
            let mode = fs::metadata(&path).expect("there").mode() & 0o777;
            assert_eq!(mode, if directory_mode == 0o700 { 0o600 } else { 0o640 });
            let text = fs::read_to_string(&path).expect("text");
            assert_eq!(text, "{\"ttl\": 30, \"slots\": {\"\\u00e4\\ud83d\\ude00\\n\\\"\": [1, null]}, \"empty\": {}}");
            assert_eq!(read_cache(directory.path()).expect("readable").as_ref(), Some(config));
        }
        fs::write(directory.path().join(NAME), "[1").expect("written");
        assert!(read_cache(directory.path()).is_err());
    }
}
