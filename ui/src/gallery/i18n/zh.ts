import type { en } from "./en";

export const zh: Record<keyof typeof en, string> = {
  "gallery.title": "我的图片",
  "gallery.total": "已用 {amount}",
  "gallery.drag_hint": "将图片拖到 ComfyUI 上即可重新打开其工作流。",
  "gallery.kind": "显示内容",
  "gallery.kind.all": "全部",
  "gallery.kind.image": "图片",
  "gallery.kind.video": "视频",
  "gallery.kind.audio": "音频",
  "gallery.select": "选择",
  "gallery.selected": "已选：{count}",
  "gallery.download": "下载",
  "gallery.delete": "删除",
  "gallery.delete_title": "永久删除？（{count}）",
  "gallery.delete_text": "删除后无法恢复。",

  deleted: "已删除：{count}",

  "gallery.shared_title": "没有图库",
  "gallery.none": "还没有图片",
  "gallery.none_of_kind": "没有此类内容",
  "gallery.none_text": "您用 ComfyUI 制作的内容会显示在这里。",
  "gallery.previous": "上一个",
  "gallery.next": "下一个",
  "gallery.no_preview": "此文件没有预览，可以下载。",
};
