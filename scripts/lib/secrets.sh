# shellcheck shell=bash
# Makes secrets and keys. Sourced; needs lib/common.sh.
#
# Files in secrets/ are bind mounts of single files: they are changed in place, never by rename, or
# running containers would keep the old ones.

secrets_dir="${SECRETS:-${root:?}/secrets}"

# random_text BYTES: letters and digits of that many random bytes.
random_text() {
  openssl rand -hex "$1"
}

# write_secret NAME: keeps what is there, else writes what comes on standard input.
write_secret() {
  local file=$secrets_dir/$1
  [[ -s $file ]] && return
  (umask 077 && cat >"$file")
  chmod 0444 "$file" # containers are not root; the folder keeps others on this machine out
}

make_secrets_dir() {
  mkdir -p "$secrets_dir"
  chmod 0700 "$secrets_dir"
}

sha256_of() {
  printf '%s' "$1" | sha256sum | cut -d ' ' -f 1
}

# add_key NAME: makes a key, keeps its hash, prints the key (nobody can print it again).
add_key() {
  local name=$1 key file=$secrets_dir/api_keys
  [[ $name =~ ^[A-Za-z0-9_.@-]{1,64}$ ]] ||
    die 2 "this is no name for a key: $name" "letters, digits, _ . @ - and at most 64" "keys.sh add alice"
  touch "$file"
  grep -q "^$name " "$file" &&
    die 3 "there is a key with this name: $name" "" "scripts/keys.sh revoke $name, or another name"
  key="sk-tandem-$(random_text 24)"
  chmod u+w "$file"
  printf '%s %s\n' "$name" "$(sha256_of "$key")" >>"$file"
  chmod 0444 "$file"
  printf '%s\n' "$key"
}

# revoke_key NAME: in place, so that running gateways see it within seconds.
revoke_key() {
  local name=$1 file=$secrets_dir/api_keys kept
  grep -q "^$name " "$file" 2>/dev/null || die 3 "there is no key with this name: $name" "" "scripts/keys.sh list"
  kept=$(grep -v "^$name " "$file" || true)
  chmod u+w "$file"
  printf '%s\n' "$kept" | sed '/^$/d' >"$file"
  chmod 0444 "$file"
}

# make_certificate FOLDER HOST…: self-signed, for a year, unless there is one.
make_certificate() {
  local folder=$1 host names='' extension
  shift
  [[ -s $folder/tls.crt && -s $folder/tls.key ]] && return
  for host in "$@"; do
    if [[ $host =~ ^[0-9.]+$ || $host == *:* ]]; then names+=",IP:$host"; else names+=",DNS:$host"; fi
  done
  extension="subjectAltName=${names#,}"
  mkdir -p "$folder"
  chmod 0700 "$folder"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
    -subj "/CN=$1" -addext "$extension" -addext 'basicConstraints=critical,CA:TRUE' \
    -keyout "$folder/tls.key" -out "$folder/tls.crt" 2>/dev/null
  chmod 0444 "$folder/tls.crt" "$folder/tls.key"
}
