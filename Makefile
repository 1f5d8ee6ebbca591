# BFS. The words after ## are what bare `make` prints.
.DEFAULT_GOAL := help
.PHONY: help build reproducible demo test race lint kernel-test bench bench-deps fuzz sim soak soak-attack mutants clean

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 10s
SEEDS       ?= 200
DEMO        ?=
BENCH       ?=
BUSY        ?=
ROUNDS      ?= 1000
CUTS        ?= 200
SOAK        ?= 1h

help: ## this list
	@echo 'make VERB, where VERB is'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-13s %s\n", $$1, $$2 }'

# Without cgo, because the relay must mark each of its threads as an I/O flusher, and cgo would start threads of its own.
# Without paths and the state of the repository in the programs, so that each clone of a commit builds the same bytes.
build: ## compile bin/bfsd and bin/bfs-relay
	@test/prepare build
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-X bfs/cmd/internal/version.commit=$$(git rev-parse --short=12 HEAD 2>/dev/null)" -o bin/ ./cmd/bfsd ./cmd/bfs-relay

reproducible: ## build HEAD in two clones and show that both give the same bytes
	@test/reproducible

demo: build ## four replicas and a relay on this machine, until ctrl-C (flags: DEMO='--kill --dir D')
	@exec bin/bfsd demo $(DEMO)

test: ## everything: install what it needs, lint, race detector, a real kernel's client; needs root (BUSY=8: with 8 busy neighbours)
	@test/prepare $(if $(BUSY),busy,test)
	@go run ./test/all -busy $(or $(BUSY),0)

race: ## unit tests of all packages under the race detector
	go test -race -timeout 0 ./cmd/... ./pkg/...

lint: ## gofmt, go vet, staticcheck
	@bad=$$(gofmt -l cmd pkg test); [ -z "$$bad" ] || { echo "gofmt would change:"; echo "$$bad"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

# Built first, for what the programs need may have to be downloaded, and tests run in a network of their own.
kernel-test: build ## only the tests with a real Linux NFS client; needs root
	@test/prepare test
	BFS_KERNEL=1 go test -count=1 -timeout 0 -v ./test/...

bench-deps: ## install the servers and programs that BFS is measured against; none of them is started
	@test/prepare bench

bench: bench-deps build ## measure BFS, NO-REP, NFS-Ganesha, the kernel's nfsd and go-nfs side by side (BENCH='-h')
	go run ./test/bench run $(BENCH)

fuzz: ## every fuzz target in turn, FUZZTIME each (default 10s)
	@for p in $$(grep -rl --include='*_test.go' '^func Fuzz' cmd pkg | xargs -rn1 dirname | sort -u); do \
		for f in $$(grep -h '^func Fuzz' $$p/*_test.go | sed 's/func \(Fuzz[A-Za-z0-9_]*\).*/\1/'); do \
			echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) ./$$p || exit 1; \
		done; \
	done

sim: ## those written by hand, 500 fixed and SEEDS fresh (default 200) schedules of the protocol under faults
	go test -count=1 -timeout 0 ./pkg/pbft/internal/sim -v -run 'Directed|Fixed|Fresh' -sim.fixed=500 -sim.seeds=$(SEEDS)

soak: ## CUTS power cuts of four guest kernels under load (default 200), as many kills of all processes, ROUNDS recoveries (default 1000) with an intruder in memory or on disk; needs root
	@test/prepare test
	go run ./test/power -rounds $(CUTS)
	go run ./test/power -rounds $(CUTS) -processes
	go run ./test/power -rounds 50 -disks
	go run ./test/power -rounds 10 -replay
	go run ./test/recoveries -rounds $(ROUNDS)

soak-attack: build ## attacks on seven replicas for SOAK (default 1h), and faults of one replica beside them
	bin/bfsd bench attack --soak $(SOAK)

mutants: ## plant known mistakes in the protocol, one at a time; the simulator must notice each
	go run ./test/mutants

clean: ## remove what was built
	rm -rf bin build
