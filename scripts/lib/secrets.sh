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
  local file=$secrets_dir/$1 text
  text=$(cat) # read in any case, or the writer before the pipe would be ended by SIGPIPE
  [[ -s $file ]] || (umask 077 && printf '%s\n' "$text" >"$file")
  chmod 0444 "$file" # containers are not root; the folder keeps others on this machine out
}

make_secrets_dir() {
  mkdir -p "$secrets_dir"
  chmod 0700 "$secrets_dir"
}

sha256_of() {
  printf '%s' "$1" | sha256sum | cut -d ' ' -f 1
}

# has_key NAME
has_key() {
  [[ -f $secrets_dir/api_keys ]] &&
    awk -v name="$1" '$1 == name { found = 1 } END { exit !found }' "$secrets_dir/api_keys"
}

# add_key NAME: makes a key, keeps its hash, prints the key (nobody can print it again).
add_key() {
  local name=$1 key file=$secrets_dir/api_keys last
  [[ $name =~ ^[A-Za-z0-9_.@-]{1,64}$ ]] ||
    die 2 "this is no name for a key: $name" "letters, digits, _ . @ - and at most 64" "scripts/keys.sh add alice"
  has_key "$name" &&
    die 3 "there is a key with this name: $name" "" "scripts/keys.sh revoke $name, or another name"
  [[ -e $file ]] || (umask 077 && : >"$file")
  chmod u+w "$file"
  last=$(tail -c 1 "$file")
  key="sk-tandem-$(random_text 24)"
  # A last line that an editor left without its end must not swallow the new one.
  printf '%s%s %s\n' "${last:+$'\n'}" "$name" "$(sha256_of "$key")" >>"$file"
  chmod 0444 "$file"
  printf '%s\n' "$key"
}

# revoke_key NAME: in place, so that running gateways see it within seconds.
revoke_key() {
  local name=$1 file=$secrets_dir/api_keys kept size
  has_key "$name" || die 3 "there is no key with this name: $name" "" "scripts/keys.sh list"
  kept=$(awk -v name="$name" '$1 != name' "$file")
  [[ -z $kept ]] || kept+=$'\n'
  size=$(stat --format=%s "$file")
  chmod u+w "$file"
  # One write over the old text, filled up with empty lines, and only then the shorter length:
  # a gateway that reads in between finds every other key.
  fill_up "$kept" "$size" | dd of="$file" bs=1M iflag=fullblock conv=notrunc status=none
  truncate --size="$(printf '%s' "$kept" | wc -c)" "$file"
  chmod 0444 "$file"
}

# fill_up TEXT SIZE: the text, and empty lines until it has that many bytes.
fill_up() {
  local missing=$(($2 - $(printf '%s' "$1" | wc -c)))
  printf '%s' "$1"
  ((missing <= 0)) || printf '%*s' "$missing" '' | tr ' ' '\n'
}

# make_certificate FOLDER HOST…: self-signed, for a year, unless there is one.
make_certificate() {
  local folder=$1 host names='' fresh
  shift
  if [[ -s $folder/tls.crt && -s $folder/tls.key ]]; then
    openssl x509 -in "$folder/tls.crt" -noout -checkend 2592000 >/dev/null ||
      warn "the certificate ends within 30 days; put a new one into $folder, in place"
    return 0
  fi
  for host in "$@"; do
    if [[ $host =~ ^[0-9.]+$ || $host == *:* ]]; then names+=",IP:$host"; else names+=",DNS:$host"; fi
  done
  mkdir -p "$folder"
  chmod 0700 "$folder"
  fresh=$(mktemp -d "$folder/new.XXXXXX")
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
    -subj /CN=Tandem -addext "subjectAltName=${names#,}" -addext 'basicConstraints=critical,CA:TRUE' \
    -keyout "$fresh/tls.key" -out "$fresh/tls.crt" 2>"$fresh/said" ||
    die 1 "the certificate could not be made" "$(tail -n 1 "$fresh/said")" "look at the names: $*"
  chmod 0444 "$fresh"/tls.*
  mv -f "$fresh"/tls.* "$folder/"
  rm -rf "$fresh"
}
