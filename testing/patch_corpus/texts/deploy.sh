#!/bin/sh
# Deploys the invoice service: deploy.sh HOST [VERSION]
set -eu

host=${1:?which host}
version=${2:-latest}
keep=5
folder=/srv/invoice

log() {
  printf '%s %s\n' "$(date +%T)" "$*" >&2
}

fail() {
  log "error: $*"
  exit 1
}

check() {
  ssh "$host" true || fail "can't reach $host"
  ssh "$host" test -d "$folder" || fail "no $folder on $host"
}

upload() {
  log "uploading $version"
  scp "dist/invoice-$version.tar.gz" "$host:$folder/" || fail "upload"
}

switch() {
  ssh "$host" "cd $folder && tar xzf invoice-$version.tar.gz && ln -sfn invoice-$version current"
  ssh "$host" systemctl restart invoice
}

prune() {
  ssh "$host" "cd $folder && ls -t *.tar.gz | tail -n +$keep | xargs -r rm -f"
}

check
upload
switch
prune
log "done - $version is live"
