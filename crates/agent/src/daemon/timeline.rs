//! Seeing to it that a promotion begins the timeline that was reserved for it: before, the placeholders; afterwards, a look at what it has
//! become. Which one is reserved is `pgherd_ha`'s decision; what a placeholder is, `history_files`'s.

use std::path::{Path, PathBuf};

use pgherd_ha::Timeline;

use crate::postgres::{Connection, Error, history_files, promote};

/// Passes over the numbers between this server's timeline and the reserved one. As a rule there are none, and nothing is written.
///
/// On this thread: a job that is cut off must leave nothing behind that goes on placing files.
pub(super) fn pass_over(data_dir: &Path, own: Timeline, reserved: Timeline) -> Result<Vec<Timeline>, Error> {
    let placed = history_files::pass_over(data_dir, own, reserved)?;
    if !placed.is_empty() {
        let numbers: Vec<String> = placed.iter().map(ToString::to_string).collect();
        tracing::info!("passing over what other promotions have reserved: timeline {}", numbers.join(", "));
    }
    Ok(placed)
}

/// The server is promoted, whatever comes of this; the next round corrects the record in the store.
pub(super) async fn check(connection: &mut Connection, reserved: Timeline) {
    match promote::timeline(connection).await {
        Ok(timeline) if timeline == reserved => {}
        Ok(timeline) => tracing::error!(
            "the promoted server is on timeline {timeline}, and {reserved} was reserved for it: somebody else has promoted it, or has put \
             history files into its pg_wal. Should a former primary be on timeline {timeline}, too, have it copied anew (`pgherd reinit`): \
             its rows cannot be told from this one's"
        ),
        Err(error) => tracing::warn!("whether the server is on the reserved timeline is not known: {}", error.full()),
    }
}

/// What standbys from older timelines will ask for has to last, and the archive must have no hole. A timeline that the store has shown,
/// up to `begun`, has a history of its own, which its primary archives; the others were only ever reserved. The promotion is done; no
/// failure here can undo it.
pub(super) async fn keep(connection: &mut Connection, data_dir: PathBuf, placed: Vec<Timeline>, begun: Timeline) {
    let archives = match connection.query_text("asking for archive_mode", "SHOW archive_mode").await {
        Ok(mode) => mode.as_deref() != Some("off"),
        Err(error) => return tracing::warn!("placeholders of timelines are not archived: {}", error.full()),
    };
    // Not waited for: a sync may take as long as the disk is busy.
    tokio::task::spawn_blocking(move || {
        let never_begun: Vec<Timeline> = placed.iter().copied().filter(|timeline| *timeline > begun).collect();
        let archived = if archives { history_files::archive(&data_dir, &never_begun) } else { Ok(()) };
        if let Err(error) = history_files::sync(&data_dir, &placed).and(archived) {
            tracing::warn!("placeholders of timelines are not kept for good: {}", error.full());
        }
    });
}
