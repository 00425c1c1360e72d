import js from "@eslint/js";
import globals from "globals";
import ts from "typescript-eslint";

export default ts.config(
  {
    ignores: [
      "dist/**",
      "target/**",
      "www/pkg/**",
      "node_modules/**",
      ".cache/**",
      "training/**",
      "test-results/**",
    ],
  },
  js.configs.recommended,
  {
    files: ["**/*.ts"],
    extends: [...ts.configs.strictTypeChecked, ...ts.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      // A signal may be aborted with any value, and that value is what its listeners get.
      "@typescript-eslint/prefer-promise-reject-errors": "off",
      "max-lines": ["error", 500],
    },
  },
  { files: ["docs/examples/**"], languageOptions: { globals: globals.browser } },
  {
    files: ["scripts/**", "*.config.js"],
    // What a script hands to a page runs there.
    languageOptions: { globals: { ...globals.node, document: "readonly" } },
  },
);
