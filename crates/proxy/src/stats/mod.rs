//! The stats page of a `mode http` listener: HTML at its uri, CSV at `uri;csv`.
//!
//! Reads what the others publish and changes nothing. It runs on the control thread: a flood of readers must not touch the
//! workers, so connections and their age are bounded.

mod csv;
mod limited;
mod page;
mod rows;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use pgherd_dcs::boot_now;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::config::StatsListener;
use crate::control::Overview;
use crate::entry::Entry;
use limited::Limited;

/// Readers at a time: people with a browser, and a scraper or two.
const READERS: usize = 64;

/// A page takes milliseconds; a connection of this age is a keep-alive that comes back, or somebody who holds a place.
const LONGEST: Duration = Duration::from_secs(15);

/// What the page shows.
#[derive(Clone, Debug)]
pub struct Stats {
    pub listener: StatsListener,
    pub entries: Arc<Vec<Arc<Entry>>>,
    pub overview: Arc<ArcSwap<Overview>>,
}

/// Serves the page on one socket, for ever.
pub async fn serve(stats: Stats, socket: std::net::TcpListener) -> io::Result<()> {
    let listener = Limited { listener: TcpListener::from_std(socket)?, places: Arc::new(Semaphore::new(READERS)) };
    let router = Router::new().fallback(answer).with_state(Arc::new(stats));
    axum::serve(listener, router).await
}

async fn answer(State(stats): State<Arc<Stats>>, uri: Uri) -> Response {
    let asked = uri.path_and_query().map_or("/", |path| path.as_str());
    let Some(options) = asked.strip_prefix(stats.listener.uri.as_str()) else { return not_found(&stats) };
    let now = boot_now();
    let overview = stats.overview.load();
    let listeners: Vec<_> = stats
        .entries
        .iter()
        .enumerate()
        .map(|(index, entry)| rows::of_listener(index, entry, &overview, now))
        .collect();
    let no_store = (header::CACHE_CONTROL, "no-cache");
    match Format::of(options) {
        Some(Format::Page { refreshed }) => {
            let refresh = stats.listener.refresh.filter(|_| refreshed);
            let text = page::page(&overview, &listeners, &stats.listener.uri, refresh, now).into_string();
            ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), no_store], text).into_response()
        }
        Some(Format::Csv) => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), no_store], csv::table(&listeners.concat()))
                .into_response()
        }
        None => not_found(&stats),
    }
}

/// What is asked for by the options after the uri.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Page { refreshed: bool },
    Csv,
}

impl Format {
    /// HAProxy's options: `;csv`, `;norefresh`, and others that choose lines or notes of its page, of which ours has all.
    /// `None`: another path, or a format that is not made here.
    fn of(options: &str) -> Option<Format> {
        let has = |word: &str| options.split([';', '?', '&']).any(|option| option == word);
        match options.chars().next() {
            None | Some(';' | '?') if has("json") || has("typed") => None,
            None | Some(';' | '?') if has("csv") => Some(Format::Csv),
            None | Some(';' | '?') => Some(Format::Page { refreshed: !has("norefresh") }),
            Some(_) => None,
        }
    }
}

fn not_found(stats: &Stats) -> Response {
    let uri = &stats.listener.uri;
    (StatusCode::NOT_FOUND, format!("Nothing here. The stats page is at {uri}, as CSV at {uri};csv\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haproxys_options_are_known() {
        let page = |refreshed| Some(Format::Page { refreshed });
        for (options, format) in [
            ("", page(true)),
            ("?", page(true)),
            (";up", page(true)),
            (";norefresh", page(false)),
            (";up;norefresh", page(false)),
            ("?st=DONE", page(true)),
            (";csv", Some(Format::Csv)),
            (";csv;norefresh", Some(Format::Csv)),
            (";norefresh;csv", Some(Format::Csv)),
            (";json", None),
            (";typed", None),
            ("favicon.ico", None),
            ("/csv", None),
        ] {
            assert_eq!(Format::of(options), format, "{options}");
        }
    }
}
