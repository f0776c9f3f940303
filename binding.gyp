{
  # node-gyp only starts the real build (scripts/build/): `node-gyp rebuild` and npm's default install step do the same as `npm run build:native`.
  "targets": [
    {
      "target_name": "xpatch",
      "type": "none",
      "actions": [
        {
          "action_name": "build_xpatch",
          "inputs": ["scripts/build/main.mjs"],
          "outputs": ["<(PRODUCT_DIR)/xpatch-built"],
          "action": ["node", "scripts/build/main.mjs"]
        }
      ]
    }
  ]
}
