# Two commands on a fresh Debian 12 machine with Rust 1.95 or newer, as root or as a user with sudo: `make up` and `make test`.

.PHONY: help up down test bench build lab lab-walk lab-down

help: ## Show what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

up: build ## Install what is missing, build, and start a cluster of three to try out
	@target/release/pgherd demo

down: ## End the cluster that `make up` started and remove its files
	@target/release/pgherd demo --stop

build: ## Build the binary (target/release/pgherd)
	@scripts/packages.sh build demo
	@cargo build --release --locked -p pgherd

test: ## Install what the tests need, then run everything
	@scripts/packages.sh build demo test
	@scripts/test.sh

bench: ## Ask the REST API on 64 connections for 30 s while the lease is renewed, and print the slowest renewal
	@scripts/packages.sh build demo test
	@cargo build --locked --quiet -p pgherd
	@PGHERD_LOAD_SECONDS=30 cargo test --locked --quiet -p pgherd-it the_lease_is_renewed_in_time -- --nocapture

lab: build ## Build the lab's images and bring it up in Docker: a primary, a replica, ZooKeeper and the entry
	@scripts/packages.sh docker
	@scripts/debian-image.sh bookworm
	@deploy/lab/lab.sh up

lab-walk: ## Walk through the lab: steps 4 to 9, then take the primary away in four ways
	@deploy/lab/walk.sh

lab-down: ## End the lab and remove its data
	@deploy/lab/lab.sh down
