# shellcheck shell=bash
# Fetches the weights: a visible step that goes on where it was interrupted. Sourced.

model_repository=Qwen/Qwen2.5-7B-Instruct
# The weights themselves come last: where they all are, everything is.
weight_files=(
  config.json generation_config.json tokenizer.json tokenizer_config.json vocab.json merges.txt
  model.safetensors.index.json
  model-00001-of-00004.safetensors model-00002-of-00004.safetensors
  model-00003-of-00004.safetensors model-00004-of-00004.safetensors
)
fetch_attempts=${FETCH_ATTEMPTS:-8}

# fetch_weights SOURCE FOLDER
fetch_weights() {
  local source=$1 folder complaint
  folder=$(weights_folder "$2")
  if [[ -f $folder/.complete ]]; then
    say "weights: complete in $folder"
    return
  fi
  mkdir -p "$folder"
  if weights_complaint "$folder" >/dev/null; then
    case $source in
      hf) fetch_from "https://huggingface.co/$model_repository/resolve/main" "$folder" ;;
      hf-mirror) fetch_from "https://hf-mirror.com/$model_repository/resolve/main" "$folder" ;;
      modelscope) fetch_from "https://modelscope.cn/models/$model_repository/resolve/master" "$folder" ;;
      http://* | https://*) fetch_from "${source%/}" "$folder" ;;
      *) copy_from "$source" "$folder" ;;
    esac
  fi
  if complaint=$(weights_complaint "$folder"); then
    die 1 "the weights are not usable" "$complaint" "delete that file in $folder and run this again"
  fi
  note_checksums "$folder"
  touch "$folder/.complete"
}

note_checksums() {
  (cd "$1" && find . -maxdepth 1 -type f ! -name '.*' ! -name weights.sha256 -printf '%P\0' |
    sort -z | xargs -0 sha256sum -- >.checksums)
  mv "$1/.checksums" "$1/weights.sha256"
}

# weights_folder MODEL_DIR: a relative one is meant from where Tandem lies.
weights_folder() {
  if [[ $1 == /* ]]; then printf '%s\n' "$1"; else printf '%s\n' "${root:?}/${1#./}"; fi
}

fetch_from() {
  local base=$1 folder=$2 file
  for file in "${weight_files[@]}"; do
    [[ -f $folder/$file ]] && continue
    say "weights: $file"
    # A partial file is gone on with; only a whole one gets its name.
    fetch_file "$base/$file" "$folder/$file.partial" ||
      die 1 "the weights could not be fetched: $file" "from $base" \
        "run the same command again: it goes on where it stopped; or --weights hf-mirror|modelscope|/a/folder"
    mv "$folder/$file.partial" "$folder/$file"
  done
}

# fetch_file URL FILE: attempts that got further do not count. Curl's own --retry would begin again.
fetch_file() {
  local left=$fetch_attempts before code status show=(--silent --show-error)
  [[ -t 2 ]] && show=(--progress-bar)
  while ((left > 0)); do
    before=$(size_of "$2")
    code=0
    status=$(curl --fail --location "${show[@]}" --connect-timeout 15 --speed-limit 1000 --speed-time 60 \
      --continue-at - --write-out '%{http_code}' --output "$2" "$1") || code=$?
    ((code == 0)) && return
    if [[ $status == 416 ]]; then
      # Nothing comes after what is here: it was whole already, or is of something else.
      whole_tensors "$2" && return
      rm -f "$2"
    elif ((code == 33)); then
      rm -f "$2" # the server cannot go on in the middle of a file
    fi
    (($(size_of "$2") > before)) || left=$((left - 1))
    sleep "${FETCH_PAUSE:-3}"
  done
  return 1
}

size_of() {
  stat --format=%s "$1" 2>/dev/null || echo 0
}

copy_from() {
  local source=$1 folder=$2
  [[ -f $source/config.json ]] ||
    die 1 "there are no weights in $source" "a folder with config.json and *.safetensors is needed" "--weights /a/folder"
  [[ $(realpath "$source") == "$(realpath "$folder")" ]] && return
  say "weights: copying from $source"
  cp --recursive --dereference --reflink=auto "$source"/. "$folder"/
}

# weights_complaint FOLDER: says what is missing or broken, and succeeds; fails when all is well.
weights_complaint() {
  local folder=$1 file index=$1/model.safetensors.index.json count=0
  [[ -s $folder/config.json ]] || { echo "config.json is missing"; return 0; }
  if [[ -f $index ]]; then
    while read -r file; do
      [[ -f $folder/$file ]] || { echo "$file is missing"; return 0; }
    done < <(grep -o '"[^"/]*\.safetensors"' "$index" | tr -d '"' | sort -u)
  fi
  for file in "$folder"/*.safetensors; do
    [[ -f $file ]] || continue
    count=$((count + 1))
    whole_tensors "$file" || { echo "$(basename -- "$file") is broken ($(size_of "$file") bytes)"; return 0; }
  done
  ((count > 0)) || { echo "there is no *.safetensors"; return 0; }
  return 1
}

# The header's length, the header, then the tensors: it says where the last one ends.
whole_tensors() {
  local file=$1 header size end
  size=$(size_of "$file")
  ((size > 8)) || return 1
  header=$(od --address-radix=n --format=u8 --read-bytes=8 "$file" | tr -d ' ')
  # A number beyond 63 bits turns negative.
  ((header > 0 && header + 8 < size && header < 100000000)) || return 1
  end=$(tail -c +9 "$file" 2>/dev/null | head -c "$header" | grep -ao '"data_offsets": *\[ *[0-9]*, *[0-9]*' |
    grep -o '[0-9]*$' | sort -n | tail -n 1) || true
  [[ -n $end ]] && ((8 + header + end == size))
}
