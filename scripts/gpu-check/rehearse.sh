#!/usr/bin/env bash
# Runs the folder of pack.mjs as root where there is nothing else: in a root folder with glibc, a shell and Mesa's Vulkan driver in
# software (Debian: mesa-vulkan-drivers) in place of a GPU's, and without a network.
#
#   scripts/gpu-check/rehearse.sh FOLDER [options of gpu-check]
set -euo pipefail
packed=$(realpath "${1:?name the folder of pack.mjs}")
shift
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
icd=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json
driver=$(sed -n 's/.*"library_path": "\(.*\)".*/\1/p' "$icd")
driver=$(ldconfig -p | sed -n "s|.* => \(.*/${driver##*/}\)$|\1|p" | head -1)
programs=(/bin/sh /usr/bin/dirname /usr/bin/mktemp /usr/bin/rm)
mkdir -p "$root"/{proc,tmp,dev,bin,usr/lib,usr/lib64}
ln -s usr/lib usr/lib64 "$root"
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 444 "$root/dev/urandom" c 1 9
mapfile -t packages < <(find "$packed" -name '*.so*' -o -name '*.node')
for file in "$icd" "$driver" $(ldd "$driver" "${programs[@]}" "$packed/bin/node" "${packages[@]}" | grep -o '/[^ :]*' | grep '^/\(usr/\)\?lib.*\.so' | sort -u); do
  install -D "$(realpath "$file")" "$root$file"
done
# What bin/ and cxx/ of the folder bring must come from there.
find "$root" -name 'libstdc++*' -o -name 'libgcc_s*' -o -name 'libvulkan.so*' | xargs -r rm
for program in "${programs[@]}"; do install "$program" "$root/bin"; done
cp -r "$packed" "$root/gpu-check"
unshare --mount --pid --fork --net sh -c '
  mount -t proc proc "$1/proc" && cd "$1" && shift &&
  exec env -i PATH=/bin GGML_VK_VISIBLE_DEVICES=0 "$(command -v chroot)" . /gpu-check/gpu-check --json /gpu-check.json "$@"
' sh "$root" "$@" && code=0 || code=$?
cp "$root/gpu-check.json" . || true
exit "$code"
