{
  # node-gyp only starts the real build (install/): `node-gyp rebuild` and npm's default install step do the same as `npm run build:native`.
  "targets": [
    {
      "target_name": "xpatch",
      "type": "none",
      "actions": [
        {
          "action_name": "build_xpatch",
          "inputs": ["install/main.mjs"],
          "outputs": ["<(PRODUCT_DIR)/xpatch-built"],
          "action": ["node", "install/main.mjs"]
        }
      ]
    }
  ]
}
