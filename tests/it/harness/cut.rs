//! A program of PostgreSQL that dies in the middle of its work, together with the agent that runs it: as when the machine goes down.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::cluster::{Cluster, LONG};

/// The programs of a node, one of which can be cut off.
#[derive(Debug)]
pub struct Cut {
    directory: PathBuf,
    /// The real ones.
    bin_dir: String,
}

impl Cut {
    /// From its agent's next start on the node uses these.
    pub fn install(cluster: &Cluster, node: &str, program: &str) -> Cut {
        let directory = cluster.directory().join(format!("{node}.bin"));
        std::fs::create_dir(&directory).expect("a directory");
        // The agent runs as user postgres, the test perhaps as root.
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).expect("its mode can be set");
        let config = cluster.node(node).config;
        let text = std::fs::read_to_string(&config).expect("the node's file");
        let line = text.lines().find(|line| line.starts_with("  bin_dir: ")).expect("the programs of the demo");
        let bin_dir = line.trim_start_matches("  bin_dir: ").trim_matches('"').to_owned();
        std::fs::write(&config, text.replace(line, &format!("  bin_dir: {}", directory.display()))).expect("written");
        for entry in Path::new(&bin_dir).read_dir().expect("the real programs").flatten() {
            if entry.file_name() != program {
                symlink(entry.path(), directory.join(entry.file_name())).expect("a link");
            }
        }
        let cut = Cut { directory, bin_dir };
        let path = cut.directory.join(program);
        std::fs::write(&path, cut.script(program)).expect("a script");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("its mode can be set");
        cut
    }

    /// The file `cut` says at which word. Its parent is the agent.
    fn script(&self, program: &str) -> String {
        format!(
            r#"#!/bin/bash
cut={directory}/cut
real={bin_dir}/{program}
[ -e $cut ] || exec $real "$@"
at=$(cat $cut)
end() {{ rm $cut; kill -9 $1 $PPID; exit 1; }}
[ "$at" = "its start" ] && end
lines={directory}/lines.$$
mkfifo $lines
$real "$@" > $lines 2>&1 &
pid=$!
while IFS= read -r line; do
    echo "$line" >&2
    case "$line" in *"$at"*) end $pid;; esac
done < $lines
wait $pid || exit
[ "$at" = "its end" ] && end
exit 0
"#,
            directory = self.directory.display(),
            bin_dir = self.bin_dir,
        )
    }

    /// Starts the node's agent, and waits until the program, and the agent with it, has been killed at this word.
    pub fn at(&self, cluster: &Cluster, node: &str, word: &str) {
        let cut = self.directory.join("cut");
        std::fs::write(&cut, word).expect("a file");
        std::fs::set_permissions(&cut, PermissionsExt::from_mode(0o666)).expect("its mode can be set");
        cluster.start_agent(node).ended_within(LONG);
        assert!(!cut.exists(), "it was killed at {word:?}\n{}", cluster.log(node));
    }
}
