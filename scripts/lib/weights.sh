# shellcheck shell=bash
# Fetches the weights: a visible step that goes on where it was interrupted. Sourced.

model_repository=Qwen/Qwen2.5-7B-Instruct
weight_files=(
  config.json generation_config.json tokenizer.json tokenizer_config.json vocab.json merges.txt
  model.safetensors.index.json
  model-00001-of-00004.safetensors model-00002-of-00004.safetensors
  model-00003-of-00004.safetensors model-00004-of-00004.safetensors
)

# fetch_weights SOURCE FOLDER
fetch_weights() {
  local source=$1 folder=$2
  [[ $folder == /* ]] || folder=${root:?}/$folder
  if [[ -f $folder/.complete ]]; then
    say "weights: complete in $folder"
    return
  fi
  mkdir -p "$folder"
  case $source in
    hf) fetch_from "https://huggingface.co/$model_repository/resolve/main" "$folder" ;;
    hf-mirror) fetch_from "https://hf-mirror.com/$model_repository/resolve/main" "$folder" ;;
    modelscope) fetch_from "https://modelscope.cn/models/$model_repository/resolve/master" "$folder" ;;
    http://* | https://*) fetch_from "${source%/}" "$folder" ;;
    *) copy_from "$source" "$folder" ;;
  esac
  check_weights "$folder"
  (cd "$folder" && sha256sum -- * >weights.sha256)
  touch "$folder/.complete"
}

fetch_from() {
  local base=$1 folder=$2 file
  for file in "${weight_files[@]}"; do
    [[ -f $folder/$file ]] && continue
    say "weights: $file"
    # A partial file is gone on with; only a whole one gets its name.
    curl --fail --location --progress-bar --retry 5 --retry-all-errors --connect-timeout 15 \
      --speed-limit 1000 --speed-time 60 --continue-at - \
      --output "$folder/$file.partial" "$base/$file" ||
      die 1 "the weights could not be fetched: $file" "from $base" \
        "run the same command again: it goes on where it stopped; or --weights hf-mirror|modelscope|/a/folder"
    mv "$folder/$file.partial" "$folder/$file"
  done
}

copy_from() {
  local source=$1 folder=$2
  [[ -f $source/config.json ]] ||
    die 1 "there are no weights in $source" "a folder with config.json and *.safetensors is needed" "--weights /a/folder"
  [[ $(realpath "$source") == "$(realpath "$folder")" ]] && return
  say "weights: copying from $source"
  cp --recursive --dereference "$source"/. "$folder"/
}

# A download that was cut has a header that promises more bytes than there are.
check_weights() {
  local folder=$1 file header size
  for file in "$folder"/*.safetensors; do
    [[ -f $file ]] || die 1 "no *.safetensors in $folder" "" "--weights hf|hf-mirror|modelscope|/a/folder"
    header=$(od --address-radix=n --format=u8 --read-bytes=8 "$file" | tr -d ' ')
    size=$(stat --format=%s "$file")
    ((header > 0 && header + 8 < size)) ||
      die 1 "a file of weights is broken: $(basename -- "$file")" "$size bytes" "delete it and run this again"
  done
}
