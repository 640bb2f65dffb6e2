#!/bin/sh
# Makes PYTHON_IMAGE where none can be pulled: Debian with Python 3.11 and nothing that a service does not need.
#
#   base.sh TAG MIRROR [SUITE]      as root; needs debootstrap, tar and docker. MIRROR is the site's Debian archive.
#
# A suite with another Python from 3.11 to 3.13 does as well.
set -eu
tag=$1 mirror=$2 suite=${3:-bookworm}
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$tree" "$mirror"
ln -s python3 "$tree/usr/bin/python"
chroot "$tree" apt-get clean
# What is for people at a terminal, and what apt fetches anew, stays out; licences stay in.
rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/log/* "$tree"/usr/share/lintian "$tree"/var/cache/debconf/*-old
# Their folders stay: packages that are installed on top put links there.
find "$tree"/usr/share/man "$tree"/usr/share/locale "$tree"/usr/share/info ! -type d -delete
find "$tree/usr/share/doc" -type f ! -name copyright -delete
find "$tree/usr" -depth -name __pycache__ -type d -exec rm -rf {} +
python=$(chroot "$tree" python3 --version)
tar -C "$tree" --numeric-owner -c . | docker import \
    --change 'CMD ["python"]' \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change "LABEL org.opencontainers.image.description=\"Debian $suite, $python\"" \
    - "$tag"
