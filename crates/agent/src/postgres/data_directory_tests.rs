use super::*;
use crate::postgres::Credentials;

fn server(data_dir: &Path) -> Server {
    Server::new("n1", "c", data_dir, Credentials::new("postgres", None))
}

fn make(directory: &Path, file: &str, text: &str) {
    fs::create_dir_all(directory).expect("a directory");
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).expect("chmod");
    fs::write(directory.join(file), text).expect("written");
}

#[test]
fn what_a_directory_is() {
    let root = tempfile::tempdir().expect("a directory");
    let reason = |path: &Path| match inspect(path, 15) {
        Some(DataDirectory::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let path = root.path().join("data");
    assert_eq!(inspect(&path, 15), Some(DataDirectory::Empty));
    fs::create_dir(&path).expect("a directory");
    fs::create_dir(path.join("lost+found")).expect("a directory");
    fs::create_dir(path.join(".pgherd-new")).expect("a directory");
    assert_eq!(inspect(&path, 15), Some(DataDirectory::Empty));
    make(&path, "photos.tar", "");
    assert!(reason(&path).contains("no PG_VERSION"));
    make(&path, "PG_VERSION", "14\n");
    assert!(reason(&path).contains("made by PostgreSQL 14"));
    make(&path, "PG_VERSION", "15\n");
    assert_eq!(inspect(&path, 15), None);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    assert!(reason(&path).contains("mode is 0755"));
    Marker::Incomplete.set(&path).expect("set");
    Marker::Incomplete.set(&path).expect("set twice");
    assert_eq!(inspect(&path, 15), Some(DataDirectory::Interrupted));
    Marker::Incomplete.clear(&path).expect("cleared");
    Marker::Incomplete.clear(&path).expect("cleared twice");
    assert!(reason(&root.path().join("data/PG_VERSION")).contains("not a directory"));
}

#[test]
fn a_new_directory_takes_the_place_of_the_old_one() {
    let root = tempfile::tempdir().expect("a directory");
    let server = server(&root.path().join("deep/data"));
    for old in [None, Some("old")] {
        let staging = Staging::prepare(&server).expect("prepared");
        assert_eq!(staging.placement, Placement::Beside);
        make(staging.path(), "file", old.map_or("old", |_| "new"));
        let kept = staging.install().expect("installed");
        assert_eq!(kept.map(|kept| fs::read_to_string(kept.join("file")).expect("kept")).as_deref(), old);
    }
    assert_eq!(fs::read_to_string(server.data_dir.join("file")).expect("the file"), "new");
    let (data_dir, placement) = place(&server.data_dir).expect("a place");
    let failed = move_aside_to(&data_dir, placement, "failed").expect("moved");
    assert!(failed.to_string_lossy().contains("/data.failed-20"), "{}", failed.display());
    assert!(failed.join("file").exists() && !server.data_dir.exists());
}

#[test]
fn the_content_of_a_mount_is_swapped_inside() {
    let root = tempfile::tempdir().expect("a directory");
    let data_dir = root.path().join("data");
    make(&data_dir, "file", "old");
    make(&data_dir.join(".pgherd-new"), "file", "new");
    let path = data_dir.join(".pgherd-new");
    let staging = Staging { data_dir: data_dir.clone(), path, placement: Placement::Inside };
    let old = staging.install().expect("installed").expect("an old directory");
    assert_eq!(old.parent(), Some(data_dir.as_path()));
    assert_eq!(fs::read_to_string(old.join("file")).expect("kept"), "old");
    assert_eq!(fs::read_to_string(data_dir.join("file")).expect("the file"), "new");
    assert!(!Marker::Incomplete.is_set(&data_dir) && !data_dir.join(".pgherd-new").exists());
    assert!(is_mount(Path::new("/proc")) && !is_mount(&data_dir));
}

#[test]
fn a_directory_is_emptied_with_what_it_uses_elsewhere_and_marked_for_what_it_is() {
    let root = tempfile::tempdir().expect("a directory");
    let (data_dir, space, stranger) = (root.path().join("data"), root.path().join("space"), root.path().join("other"));
    make(&data_dir.join("base/1"), "file", "");
    make(&data_dir.join("pg_tblspc"), "file", "");
    make(&data_dir, "PG_VERSION", "15\n");
    make(&space.join("PG_15"), "file", "");
    make(&stranger, "file", "");
    std::os::unix::fs::symlink(&space, data_dir.join("pg_tblspc/1")).expect("a link");
    std::os::unix::fs::symlink(&stranger, data_dir.join("link")).expect("a link");
    empty(&data_dir).expect("emptied");
    assert_eq!(inspect(&data_dir, 15), Some(DataDirectory::Interrupted));
    assert!(content(&data_dir).expect("listed").is_empty() && content(&space).expect("listed").is_empty());
    assert!(stranger.join("file").exists(), "a link of the user's is not followed");
    empty(&root.path().join("absent")).expect("nothing to do");
}

#[test]
fn lock_files_of_a_copy_go_and_nothing_else() {
    let root = tempfile::tempdir().expect("a directory");
    for name in [".s.PGSQL.5432.lock", "pg_control", ".s.other.lock"] {
        make(root.path(), name, "");
    }
    remove_copied_socket_locks(root.path()).expect("removed");
    let mut left = content(root.path()).expect("listed");
    left.sort();
    assert_eq!(left, [".s.other.lock", "pg_control"]);
    assert!(free_bytes(&root.path().join("not/there")).expect("a number") > 0);
}
