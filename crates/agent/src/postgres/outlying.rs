//! What belongs to a data directory and lies elsewhere: tablespaces, and a log directory of its own.
//!
//! A copy finds their places full of the data that it is to replace. So each gets a place beside its own, as the data directory does, and is
//! put in place just before that. Blocking functions, but for the question to the source.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::connection::query_remote;
use super::data_directory::{Marker, Placement, Staging, content, move_aside_to, place};
use super::{Error, Server, ToolOption, Upstream};

const LOG: &str = "pg_wal";
const TABLESPACES: &str = "pg_tblspc";

/// Where something that lies elsewhere belongs on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    kind: Kind,
    target: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// `pg_wal` is a link to it.
    Log,
    /// The source's own path of it.
    Tablespace(PathBuf),
}

/// A place beside the one where it belongs, for the copy.
#[derive(Debug)]
pub struct Outlying {
    place: Place,
    staging: Staging,
}

/// Everything that a copy of `source` has outside of its data directory.
pub async fn places(server: &Server, source: &Upstream) -> Vec<Place> {
    const SQL: &str = "SELECT json_agg(pg_tablespace_location(oid))::text FROM pg_tablespace \
        WHERE pg_tablespace_location(oid) LIKE '/%'";
    let asked = query_remote(server, source, "asking the source for its tablespaces", SQL).await;
    let tablespaces: Vec<PathBuf> = match asked {
        Ok(text) => text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        // Perhaps it lets this node in for replication alone. pg_basebackup says what it cannot do.
        Err(error) => {
            tracing::debug!("{}", error.full());
            Vec::new()
        }
    };
    let tablespaces = tablespaces.into_iter().map(|path| {
        let target = mapped(&server.basebackup_options, &path).unwrap_or_else(|| path.clone());
        Place { kind: Kind::Tablespace(path), target }
    });
    let log = log_directory(server).map(|target| Place { kind: Kind::Log, target });
    log.into_iter().chain(tablespaces).collect()
}

/// As the options have it, else where it has been so far.
fn log_directory(server: &Server) -> Option<PathBuf> {
    let option = server.basebackup_options.iter().find(|option| option.name == "waldir");
    match option.and_then(|option| option.value.clone()) {
        Some(path) => Some(PathBuf::from(path)),
        None => fs::read_link(server.data_dir.join(LOG)).ok().map(|path| server.data_dir.join(path)),
    }
}

/// The user's own mapping of a tablespace, `OLD=NEW` with `\=` for an equals sign.
fn mapped(options: &[ToolOption], tablespace: &Path) -> Option<PathBuf> {
    let mappings = options.iter().filter(|option| option.name == "tablespace-mapping");
    mappings
        .filter_map(|option| split_mapping(option.value.as_deref()?))
        .find_map(|(old, new)| (old == tablespace).then_some(new))
}

pub(super) fn split_mapping(text: &str) -> Option<(PathBuf, PathBuf)> {
    let mut escaped = false;
    let equals = text.char_indices().find(|(_, letter)| {
        let found = *letter == '=' && !escaped;
        escaped = *letter == '\\' && !escaped;
        found
    });
    let (old, new) = text.split_at(equals?.0);
    let path = |text: &str| PathBuf::from(text.replace("\\=", "="));
    Some((path(old), path(&new[1..])))
}

/// Removes what an interrupted attempt left, and refuses what cannot be copied beside.
pub fn prepare(server: &Server, places: Vec<Place>) -> Result<Vec<Outlying>, Error> {
    let prepare = |place: Place| {
        if place.target.starts_with(&server.data_dir) || !place.target.is_absolute() {
            return Err(Error::Refused(format!(
                "a copy would have {} inside of the data directory that it is to replace: move that tablespace or log directory elsewhere \
                 on the source, or give it another place on this node with `tablespace-mapping` or `waldir` under postgresql.basebackup",
                place.target.display()
            )));
        }
        Ok(Outlying { staging: Staging::at(&place.target)?, place })
    };
    places.into_iter().map(prepare).collect()
}

impl Outlying {
    /// Where the copy goes first.
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// The option of pg_basebackup that brings it there.
    pub fn option(&self) -> ToolOption {
        let path = |path: &Path| path.display().to_string().replace('=', "\\=");
        match &self.place.kind {
            Kind::Log => ToolOption::with_value("waldir", self.path().display().to_string()),
            Kind::Tablespace(source) => {
                ToolOption::with_value("tablespace-mapping", format!("{}={}", path(source), path(self.path())))
            }
        }
    }

    /// The user's option says where this belongs, and ours takes its place.
    pub fn replaces(&self, option: &ToolOption) -> bool {
        match (&self.place.kind, option.name.as_str()) {
            (Kind::Log, "waldir") => true,
            (Kind::Tablespace(source), "tablespace-mapping") => {
                option.value.as_deref().and_then(split_mapping).is_some_and(|(old, _)| old == *source)
            }
            _ => false,
        }
    }
}

/// Puts everything where it belongs, and lets the complete `copy` point there. From here on the old data directory misses something, so it
/// is marked. Returns where the old content is now, for the caller to remove.
pub fn install(data_dir: &Path, copy: &Path, outlying: Vec<Outlying>) -> Result<Vec<PathBuf>, Error> {
    let mut old = Vec::new();
    if !outlying.is_empty() && data_dir.exists() {
        Marker::Incomplete.set(data_dir)?;
    }
    for Outlying { place, staging } in outlying {
        let staged = staging.path().to_owned();
        old.extend(staging.install()?);
        for link in links(copy)?.into_iter().filter(|link| link.target == staged) {
            fs::remove_file(&link.path).map_err(Error::file("remove", &link.path))?;
            symlink(&place.target, &link.path).map_err(Error::file("create", &link.path))?;
        }
    }
    Ok(old)
}

struct Link {
    path: PathBuf,
    target: PathBuf,
}

/// The links of a data directory to what lies elsewhere.
fn links(data_dir: &Path) -> Result<Vec<Link>, Error> {
    let tablespaces = data_dir.join(TABLESPACES);
    let entries = match fs::read_dir(&tablespaces) {
        Ok(entries) => entries.collect::<std::io::Result<Vec<_>>>().map_err(Error::file("list", &tablespaces))?,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::file("list", &tablespaces)(error)),
    };
    let paths = entries.into_iter().map(|entry| entry.path()).chain([data_dir.join(LOG)]);
    // What is no link lies where it is.
    let link = |path: PathBuf| fs::read_link(&path).ok().map(|target| Link { target: data_dir.join(target), path });
    Ok(paths.filter_map(link).collect())
}

/// Moves aside what a cluster that came to nothing has elsewhere, with the links to it, so that the next attempt finds the places empty. What was
/// there before it was begun may be somebody else's, and stays.
pub fn move_failed_aside(data_dir: &Path, begun: Option<SystemTime>) -> Result<(), Error> {
    for Link { path, target } in links(data_dir)? {
        let Ok(target) = fs::canonicalize(&target) else { continue };
        if target.starts_with(data_dir) || !target.is_dir() || content(&target)?.is_empty() {
            continue;
        }
        let stays = |why: &str| {
            tracing::warn!("{} stays as it is: {why}; the next attempt may find it in its way", target.display())
        };
        let (target, placement) = match place(&target)? {
            (_, Placement::Inside) => {
                stays("it is a mount of its own, or its parent is not this user's");
                continue;
            }
            beside => beside,
        };
        let is_new = |path: &Path| -> bool {
            let born = fs::symlink_metadata(path).and_then(|found| found.created());
            begun.zip(born.ok()).is_some_and(|(begun, born)| born > begun)
        };
        if !content(&target)?.iter().all(|name| is_new(&target.join(name))) {
            stays("some of it was there before, and may be another's");
            continue;
        }
        let (whole, mode) =
            (is_new(&target), fs::metadata(&target).map_err(Error::file("look at", &target))?.permissions());
        let aside = move_aside_to(&target, placement, "failed")?;
        if !whole {
            fs::create_dir(&target).map_err(Error::file("create", &target))?;
            fs::set_permissions(&target, mode).map_err(Error::file("chmod", &target))?;
        }
        fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        symlink(&aside, &path).map_err(Error::file("create", &path))?;
        tracing::warn!("what was made of the new cluster in {} lies in {}", target.display(), aside.display());
    }
    Ok(())
}

/// The directories elsewhere that this data directory uses.
pub fn used_by(data_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    Ok(links(data_dir)?.into_iter().map(|link| link.target).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Credentials;

    #[test]
    fn mappings_are_split_at_the_first_bare_equals_sign() {
        for (text, expected) in [("/a=/b", Some(("/a", "/b"))), (r"/a\=b=/c\=d", Some(("/a=b", "/c=d"))), ("/a", None)]
        {
            let expected = expected.map(|(old, new)| (PathBuf::from(old), PathBuf::from(new)));
            assert_eq!(split_mapping(text), expected, "{text}");
        }
    }

    #[test]
    fn what_lies_elsewhere_is_put_in_place_of_the_old_and_the_copy_points_there() {
        let root = tempfile::tempdir().expect("a directory");
        let path = |name: &str| root.path().join(name);
        let mut server = Server::new("n1", "c", path("data"), Credentials::new("postgres", None));
        fs::create_dir_all(path("data/pg_tblspc")).expect("the old one");
        for (directory, link) in [("wal", "data/pg_wal"), ("space", "data/pg_tblspc/1")] {
            fs::create_dir(path(directory)).expect("a directory");
            fs::write(path(directory).join("file"), "old").expect("written");
            symlink(path(directory), path(link)).expect("a link");
        }
        assert_eq!(log_directory(&server), Some(path("wal")), "it stays where it was");
        let mapping = format!("/source={}", path("space").display());
        server.basebackup_options = vec![ToolOption::with_value("tablespace-mapping", mapping)];
        let target = mapped(&server.basebackup_options, Path::new("/source")).expect("mapped");
        let places = vec![
            Place { kind: Kind::Log, target: path("wal") },
            Place { kind: Kind::Tablespace("/source".into()), target },
        ];
        let outlying = prepare(&server, places).expect("prepared");
        let staged = path("space.pgherd-new");
        assert_eq!(outlying[1].option().argument(), format!("--tablespace-mapping=/source={}", staged.display()));
        assert!(
            outlying[1].replaces(&server.basebackup_options[0]) && !outlying[0].replaces(&server.basebackup_options[0])
        );
        // What pg_basebackup does.
        fs::create_dir_all(path("copy/pg_tblspc")).expect("a copy");
        for (directory, link) in [(outlying[0].path(), "copy/pg_wal"), (outlying[1].path(), "copy/pg_tblspc/1")] {
            fs::create_dir(directory).expect("a directory");
            fs::write(directory.join("file"), "new").expect("written");
            symlink(directory, path(link)).expect("a link");
        }
        let old = install(&server.data_dir, &path("copy"), outlying).expect("installed");
        assert!(Marker::Incomplete.is_set(&server.data_dir), "without its tablespaces it must not be started");
        for link in ["copy/pg_wal", "copy/pg_tblspc/1"] {
            assert_eq!(fs::read_to_string(path(link).join("file")).expect("the file"), "new", "{link}");
        }
        let mut used = used_by(&path("copy")).expect("links");
        used.sort();
        assert_eq!(used, [path("space"), path("wal")]);
        assert_eq!(old.len(), 2);
        assert!(old.iter().all(|old| fs::read_to_string(old.join("file")).is_ok_and(|text| text == "old")));
    }

    #[test]
    fn what_a_failed_cluster_has_elsewhere_goes_aside_with_it_where_it_is_its_own() {
        let root = tempfile::tempdir().expect("a directory");
        let path = |name: &str| root.path().join(name);
        let data = path("data");
        fs::create_dir_all(data.join(TABLESPACES)).expect("a directory");
        for name in ["wal", "mixed"] {
            fs::create_dir(path(name)).expect("a directory");
        }
        fs::write(path("mixed").join("old"), "theirs").expect("written");
        let mark = path("mark");
        fs::write(&mark, "").expect("written");
        let begun = fs::metadata(&mark).and_then(|found| found.modified()).expect("its time");
        // As soon as a file is younger than the mark, so is all that comes after it.
        let later = path("later");
        loop {
            fs::write(&later, "").expect("written");
            if fs::metadata(&later).and_then(|found| found.created()).expect("its birth") > begun {
                break;
            }
            fs::remove_file(&later).expect("removed");
        }
        fs::create_dir(path("space")).expect("a directory");
        for name in ["wal", "mixed", "space"] {
            fs::write(path(name).join("new"), name).expect("written");
        }
        symlink(path("wal"), data.join(LOG)).expect("a link");
        symlink(path("mixed"), data.join(TABLESPACES).join("1")).expect("a link");
        symlink(path("space"), data.join(TABLESPACES).join("2")).expect("a link");

        move_failed_aside(&data, None).expect("nothing is known to be ours");
        assert!(path("wal/new").exists() && path("mixed/new").exists() && path("space/new").exists());
        move_failed_aside(&data, Some(begun)).expect("moved");
        assert!(fs::read_dir(path("wal")).expect("it was there before").next().is_none());
        assert!(!path("space").exists());
        assert!(path("mixed/old").exists() && path("mixed/new").exists(), "what is there was not only its own");
        for (link, expected) in [("pg_wal", "wal"), ("pg_tblspc/1", "mixed"), ("pg_tblspc/2", "space")] {
            assert_eq!(fs::read_to_string(data.join(link).join("new")).expect("the evidence"), expected);
        }
    }

    #[test]
    fn a_place_inside_of_the_data_directory_is_refused() {
        let root = tempfile::tempdir().expect("a directory");
        let server = Server::new("n1", "c", root.path(), Credentials::new("postgres", None));
        let place = Place { kind: Kind::Tablespace("/source".into()), target: root.path().join("space") };
        let error = prepare(&server, vec![place]).expect_err("refused").to_string();
        assert!(error.contains("tablespace-mapping"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn any_mapping_is_survived(text in "\\PC*") {
            split_mapping(&text);
        }
    }
}
