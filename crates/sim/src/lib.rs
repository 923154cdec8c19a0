//! A seeded world that runs `pgherd_ha::Agent` against models of store, network, PostgreSQL and guard.
