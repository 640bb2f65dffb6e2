#!/bin/sh
# install.sh LOCK TARGET: installs what is locked, by its hashes, leaves out what never runs, and compiles the rest.
# Build secrets: `ca_bundle`, certificates that pip is to trust; `pip_conf`, the site's own index. Both may be empty.
set -eu
lock=$1 target=$2
# A secret that is not given may be there as an empty file.
[ ! -s /run/secrets/ca_bundle ] || export PIP_CERT=/run/secrets/ca_bundle
[ ! -s /run/secrets/pip_conf ] || export PIP_CONFIG_FILE=/run/secrets/pip_conf
/pip/bin/pip install --quiet --require-hashes --no-deps --only-binary :all: --no-compile --target "$target" -r "$lock"
# What never runs: sources of compiled modules, tests, clients of other brokers, FHIR releases that are not spoken here.
find "$target" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.c' -o -name '*.h' \) -delete
find "$target" -type d -name tests -prune -exec rm -rf {} +
for broker in confluent mqtt nats rabbit redis; do rm -rf "$target/faststream/$broker"; done
if [ -d "$target/fhir" ]; then
    rm -rf "$target/fhir/resources/STU3"
    find "$target/fhir/resources" -maxdepth 1 -name '*.py' ! -name '__*' -delete # R5; R4B is a package of its own
fi
rm -rf "$target/bin"
# Symbols for debuggers are half of some modules. Libraries that came beside a module were moved there by a tool whose
# work strip may undo: they stay as they are.
if command -v strip >/dev/null; then
    find "$target" -name '*.so' ! -path '*.libs/*' -exec strip --strip-unneeded {} +
fi
python -m compileall -q -j 0 "$target"
