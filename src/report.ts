// `xpatch/report`: pages, figures and tables.
export { describeRun, type Manifest, type RunDescription } from './experiment/manifest.js';
export { type PromptLens, type PromptLensOptions, readPromptLens } from './lens/prompt-lens.js';
export { barsToSvg } from './report/figures/bars.js';
export { type Figure, figureToSvg, type Panel, type Series } from './report/figures/figure.js';
export { heatmapToSvg } from './report/figures/heatmap.js';
export { pictureToSvg } from './report/figures/picture.js';
export { piesToSvg } from './report/figures/pies.js';
export { figureToPng, svgToPng } from './report/figures/png.js';
export { scatterToSvg } from './report/figures/scatter.js';
export { lensReport, ReportPage } from './report/lens-report.js';
export { reportToHtml } from './report/page/page.js';
export type {
  Bars,
  BestToken,
  Block,
  LensPicture,
  LensView,
  PatchMapColumn,
  PatchMapView,
  Pies,
  Report,
  Scatter,
  TextTable,
  WorkedExample,
} from './report/report.js';
export { sweepReport } from './report/sweep.js';
export { tableToCsv, tableToLatex, tableToMarkdown, tableToText } from './report/tables.js';
export { type RunServer, serveRuns } from './report/view/server.js';
export { provenanceOf, writeReport } from './report/write-report.js';
