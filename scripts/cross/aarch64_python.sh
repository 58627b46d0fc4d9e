#!/usr/bin/env bash
# A CPython 3.13 for Linux on aarch64 with what it needs, from Debian 13's packages, unpacked into FOLDER:
# scripts/cross/aarch64_python.sh FOLDER. Nothing is installed here, and no rights are needed. Then
# qemu-aarch64 -L FOLDER FOLDER/usr/bin/python3.13 (Debian's qemu-user) runs it.
set -euo pipefail
folder=$(realpath -m "$1")
apt=$folder/apt
# This machine's own mirror, where it is a Debian.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -1)
if [ -z "$mirror" ]; then
    echo "aarch64_python.sh: apt knows no mirror of Debian" >&2
    exit 1
fi
mkdir -p "$apt/lists/partial" "$apt/packages/partial" "$apt/preferences"
touch "$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$apt/sources.list"
# An apt of its own, which knows of no package that is installed and of no other machine.
cat >"$apt/apt.conf" <<CONF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "";
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache::archives "$apt/packages";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferencesparts "$apt/preferences";
CONF
export APT_CONFIG=$apt/apt.conf
apt-get -qq update
apt-get -qq install --yes --download-only --no-install-recommends python3.13 libstdc++6 >/dev/null
for package in "$apt"/packages/*.deb; do
    dpkg-deb --extract "$package" "$folder"
done
ln -sfn usr/lib "$folder/lib" # where programs look for their loader
rm -rf "$apt"
