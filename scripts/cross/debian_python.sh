#!/usr/bin/env bash
# A CPython with its headers and what it needs, from Debian's packages, unpacked into FOLDER:
# scripts/cross/debian_python.sh ARCHITECTURE SUITE VERSION FOLDER, as in amd64 forky 3.14 or arm64 trixie
# 3.13. Nothing is installed here, and no rights are needed. FOLDER/bin/pythonVERSION runs it: with
# the C library of that Debian, and, of another architecture, by qemu-user.
set -euo pipefail
architecture=$1
suite=$2
version=$3
folder=$(realpath -m "$4")
case $architecture in
amd64) machine=x86_64 loader=ld-linux-x86-64.so.2 ;;
arm64) machine=aarch64 loader=ld-linux-aarch64.so.1 ;;
*) echo "debian_python.sh: amd64 or arm64, not $architecture" >&2 && exit 2 ;;
esac
apt=$folder/apt
# This machine's own mirror, where it is a Debian.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null | head -1)
if [ -z "$mirror" ]; then
    echo "debian_python.sh: apt knows no mirror of Debian" >&2
    exit 1
fi
mkdir -p "$apt/lists/partial" "$apt/packages/partial" "$apt/preferences"
touch "$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
# An apt of its own, which knows of no package that is installed and of no other machine.
cat >"$apt/apt.conf" <<CONF
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
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
apt-get -qq install --yes --download-only --no-install-recommends \
    "python$version" "python$version-venv" "libpython$version-dev" libstdc++6 >/dev/null
for package in "$apt"/packages/*.deb; do
    dpkg-deb --extract "$package" "$folder"
done
rm -rf "$apt" "${folder:?}/bin"
ln -sfn usr/lib "$folder/lib" # where programs look for their loader
ln -sfn usr/include "$folder/include"
# venv takes pip from there, not from the system's own.
grep -rlZ --include='_sysconfig*' /usr/share/python-wheels "$folder/usr/lib/python$version" |
    xargs -0r sed -i "s|/usr/share/python-wheels|$folder/usr/share/python-wheels|g"
# Debian's own pyconfig.h only picks one by the compiler's target, which may be another one here.
cp "$folder/usr/include/$machine-linux-gnu/python$version/pyconfig.h" "$folder/usr/include/python$version/"
if [ "$(uname -m)" = "$machine" ]; then
    run="'$folder/usr/lib/$machine-linux-gnu/$loader' --argv0 \"\$0\" --library-path '$folder/usr/lib/$machine-linux-gnu'"
else
    run="qemu-$machine -L '$folder' -0 \"\$0\""
fi
mkdir "$folder/bin"
# It is called by links from virtual environments too, and then belongs to these.
printf '#!/bin/bash\nexec %s %q "$@"\n' "$run" "$folder/usr/bin/python$version" >"$folder/bin/python$version"
chmod +x "$folder/bin/python$version"
