//! What a user is told when something is wrong, and that `docs/troubleshooting.md` tells the same.
//!
//! The tests of this folder take their expected messages from here, and the section of that page must have each of them in a row
//! that says the same of what pgherd does then, and no row beside.

use std::process::Output;

use crate::harness::cluster::text;

/// One thing that can be wrong.
#[derive(Debug)]
pub struct Trouble {
    /// Parts of the one line that the log has of it.
    parts: &'static [&'static str],
    then: Then,
}

/// What pgherd does about it.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// Nothing more.
    Ends,
    /// It recovers by itself when that is mended.
    Waits,
}

impl Then {
    /// In the words of the page.
    fn words(self) -> &'static str {
        match self {
            Then::Ends => "ends with 1",
            Then::Waits => "waits",
        }
    }
}

macro_rules! troubles {
    ($($name:ident $then:ident [$($part:literal),+];)*) => {
        $(pub const $name: Trouble = Trouble { parts: &[$($part),+], then: Then::$then };)*
        const ALL: &[Trouble] = &[$($name),*];
    };
}

troubles! {
    YAML_VALUE Ends [": expected ", ", found "];
    YAML_MISSING Ends ["required, but missing"];
    YAML_SYNTAX Ends ["this is not YAML"];
    HAPROXY_CFG Ends ["cannot be used:"];
    PROGRAMS_MISSING Ends ["the program initdb is not in", "install PostgreSQL's server package"];
    REST_PORT_TAKEN Ends ["the REST API cannot listen on", "Address already in use"];
    FOREIGN Ends ["the data directory has the system identifier"];
    SECOND_NAME Ends ["Can't start; there is already a node named"];
    SECOND_DATA Ends ["another agent looks after"];
    STORE_AWAY Waits ["the store cannot be read:", "trying on"];
    STORE_LOGIN Waits ["the store cannot be read:", "authentication failed", "check `etcd3.username` and `etcd3.password`"];
    PORT_TAKEN Waits ["PostgreSQL is not started: another process listens on"];
    OTHER_VERSION Waits ["the data directory cannot be used and is left untouched", "it was made by PostgreSQL"];
    OTHER_OWNER Waits ["the data directory cannot be used and is left untouched", "it belongs to"];
    OTHER_MODE Waits ["the data directory cannot be used and is left untouched", "its mode is"];
    NO_DATA_DIRECTORY Waits ["the data directory cannot be used and is left untouched", "has no PG_VERSION"];
    SUPERUSER_PASSWORD Waits ["PostgreSQL runs and does not let this agent in as user"];
    COPY_PASSWORD Waits ["replica creation failed after", "this node logs in there as"];
    STREAM_PASSWORD Waits ["this standby does not stream from", "this node logs in there as"];
    STREAM_REFUSED Waits ["this standby does not stream from", "pg_hba.conf needs a line"];
    STREAM_UNREACHABLE Waits ["this standby does not stream from", "cannot connect to PostgreSQL at", "is that server up"];
    DISK_FULL Waits ["the disk under", "is full", "PostgreSQL refuses writes"];
    ENDED_DISK_FULL Waits ["PostgreSQL in", "has ended", "and its disk is full"];
    COPY_DISK_FULL Waits ["replica creation failed after", "nothing half-made is started"];
    COPY_TOO_LARGE Waits ["replica creation failed after", "the copy needs"];
}

impl Trouble {
    /// The lines that tell of it.
    pub fn lines<'a>(&self, log: &'a str) -> Vec<&'a str> {
        log.lines().filter(|line| self.is_in(line)).collect()
    }

    /// For [`eventually`](crate::harness::eventually).
    pub fn said_in(&self, log: &str) -> Result<(), String> {
        if self.lines(log).is_empty() { Err(format!("{:?} is not said", self.parts)) } else { Ok(()) }
    }

    /// The program has said so and ended with 1; all that it said.
    pub fn ends(&self, output: &Output) -> String {
        let said = text(output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!self.lines(&said).is_empty(), "{:?} is missing in\n{said}", self.parts);
        said
    }

    fn is_in(&self, line: &str) -> bool {
        self.parts.iter().all(|part| line.contains(part))
    }
}

#[test]
fn the_page_has_every_message_and_no_other() {
    let page = include_str!("../../../docs/troubleshooting.md");
    let (_, section) = page.split_once("\n## When something is wrong at the start\n").expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    for trouble in ALL {
        let words = format!("| {}", trouble.then.words());
        let has = rows.iter().any(|row| trouble.is_in(row) && row.contains(&words));
        assert!(has, "no row has {:?} and {words:?}", trouble.parts);
    }
    for row in rows {
        assert!(ALL.iter().any(|trouble| trouble.is_in(row)), "no test looks for this message: {row}");
    }
}
